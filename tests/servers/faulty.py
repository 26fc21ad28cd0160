"""Stands before a model server as a proxy and fails by a seeded schedule; over gRPC: faulty_grpc.py.

Proxies run in threads of the test process, listen on 127.0.0.1, and count in `log` what they did, so that a test can
tell that every fault really happened. Only predictions fail (POST, or a method named Predict): the rest is passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import httpx

from tests.servers.misaligned import without_last_prediction

HTTP_KINDS = {
    "quota": "429",
    "quota_retry_after": "429 with Retry-After",
    "unavailable": "503",
    "reset_before": "the connection is reset before the body is read",
    "reset_after": "the connection is reset when the body is read",
    "answer_lost": "the server predicts, then the connection is reset",
    "stall": "no answer for `stall_seconds`, then the connection is closed",
    "truncated": "the answer breaks off half-way",
    "misaligned": "an answer in good order, of one prediction less",
    "html": "a page, with status 200",
}


@dataclass(frozen=True)
class Faults:
    """What goes wrong.

    Attributes:
      seed: of the schedule: the n-th prediction request always has the same fate.
      rate: share of prediction requests that fail.
      kinds: how: keys of HTTP_KINDS or GRPC_KINDS, each as often as the others; all of them if empty.
      die_at: numbers of the prediction requests (the first is 1) at which the server dies: it drops all connections
        and refuses new ones.
      down_seconds: until it comes back, on the same port.
      stall_seconds: longer than the client's patience.
      retry_after: seconds.
    """

    seed: int = 0
    rate: float = 0.2
    kinds: tuple[str, ...] = ()
    die_at: tuple[int, ...] = ()
    down_seconds: float = 0.3
    stall_seconds: float = 30.0
    retry_after: float = 0.05


class Proxy:
    """A proxy, and what it did.

    Attributes:
      url: `http://127.0.0.1:port`, or `127.0.0.1:port` for gRPC.
      log: how often it did what: the kinds of faults, "died", "came_back", "dropped" (when it died), "passed"
        (predictions that were passed on as they were).
      most_at_once: how many prediction requests were open at the same time.
    """

    def __init__(self, faults: Faults, kinds: Mapping[str, str]) -> None:
        chosen = faults.kinds or tuple(kinds)
        if unknown := set(chosen) - set(kinds):
            raise ValueError(f"no such faults: {sorted(unknown)}")
        self.url = ""
        self.log: Counter[str] = Counter()
        self.most_at_once = 0
        self.faults = faults
        self._kinds = sorted(chosen)
        self._random = random.Random(faults.seed)
        self._bag: list[str] = []
        self._requests = 0
        self._open = 0
        self._lock = threading.Lock()

    @property
    def requests(self) -> int:
        """Prediction requests so far."""
        return self._requests

    @contextlib.contextmanager
    def _prediction(self) -> Iterator[str]:
        """The fate of the next prediction request: a kind, "died", or "" if all goes well."""
        with self._lock:
            self._requests += 1
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
            fate = ""
            if self._random.random() < self.faults.rate:
                if not self._bag:
                    self._bag = self._random.sample(self._kinds, len(self._kinds))
                fate = self._bag.pop()
            if self._requests in self.faults.die_at:
                fate = "died"
        try:
            yield fate
        finally:
            with self._lock:
                self._open -= 1

    def _count(self, what: str) -> None:
        with self._lock:
            self.log[what] += 1

    def _passed(self, fate: str) -> None:
        """Nothing went wrong; a fault that did not fit this request is for one of the next."""
        with self._lock:
            self.log["passed"] += 1
            if fate:
                self._bag.append(fate)


@contextlib.contextmanager
def faulty_http(upstream: str, faults: Faults) -> Iterator[Proxy]:
    """A proxy before the HTTP server at `upstream`."""
    proxy = _HttpProxy(upstream, faults)
    ready: Future[None] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(proxy.run(ready)), name="faulty_http", daemon=True)
    thread.start()
    ready.result()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()


_NOT_PASSED_ON = {"host", "connection", "content-length", "transfer-encoding", "content-encoding", "accept-encoding"}


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    headers: Mapping[str, str]


class _HttpProxy(Proxy):
    def __init__(self, upstream: str, faults: Faults) -> None:
        super().__init__(faults, HTTP_KINDS)
        self._upstream = upstream
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def run(self, ready: Future[None]) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            self._stopped = asyncio.Event()
            self._death = asyncio.Lock()
            await self._listen()
        except BaseException as error:
            ready.set_exception(error)
            return
        self.url = f"http://127.0.0.1:{self._port}"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2)
        async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as self._client:
            ready.set_result(None)
            await self._stopped.wait()
            self._drop()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def _drop(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            _reset(writer)

    async def _die(self) -> None:
        async with self._death:
            self._drop()
            self._count("died")
            await asyncio.sleep(self.faults.down_seconds)
            await self._listen()
            self._count("came_back")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while not writer.is_closing():
                request = await _read_head(reader)
                if request.method != "POST":
                    await self._pass_on(request, b"", writer)
                    continue
                with self._prediction() as fate:
                    await self._predict(request, fate, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _predict(
        self, request: _Request, fate: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if fate == "died":
            self._dying = asyncio.create_task(self._die())
            _reset(writer)
            return
        if fate == "reset_before":
            self._count(fate)
            _reset(writer)
            return
        body = await reader.readexactly(int(request.headers["content-length"]))
        if fate in _CANNED:
            self._count(fate)
            status, headers, text = _CANNED[fate]
            if fate == "quota_retry_after":
                headers = {**headers, "retry-after": str(self.faults.retry_after)}
            await _write(writer, _answer(status, headers, text))
        elif fate == "reset_after":
            self._count(fate)
            _reset(writer)
        elif fate == "stall":
            self._count(fate)
            # Or until the client goes.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(1), self.faults.stall_seconds)
            writer.close()
        else:
            await self._pass_on(request, body, writer, fate)

    async def _pass_on(self, request: _Request, body: bytes, writer: asyncio.StreamWriter, fate: str = "") -> None:
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_PASSED_ON}
        headers["accept-encoding"] = "identity"
        try:
            got = await self._client.request(
                request.method, self._upstream + request.path, content=body, headers=headers
            )
        except httpx.HTTPError as error:
            await _write(writer, _answer(502, {"content-type": "text/plain"}, repr(error).encode()))
            return
        headers = {name: value for name, value in got.headers.items() if name not in _NOT_PASSED_ON}
        content = got.content
        if writer.is_closing():
            self._count("dropped")
            return
        if fate == "answer_lost":
            self._count(fate)
            _reset(writer)
            return
        if fate == "truncated":
            self._count(fate)
            answer = _answer(got.status_code, headers, content)
            await _write(writer, answer[: len(answer) - (len(content) + 1) // 2])
            writer.close()
            return
        less = without_last_prediction(content) if fate == "misaligned" and got.is_success else None
        if less is not None:
            self._count(fate)
            content = less
        elif request.method == "POST":
            self._passed(fate)
        await _write(writer, _answer(got.status_code, headers, content))


_CANNED: dict[str, tuple[int, dict[str, str], bytes]] = {
    "quota": (429, {"content-type": "application/json"}, b'{"error": "too many requests"}'),
    "quota_retry_after": (429, {"content-type": "application/json"}, b'{"error": "too many requests"}'),
    "unavailable": (503, {"content-type": "text/plain"}, b"no healthy upstream"),
    "html": (200, {"content-type": "text/html"}, b"<!doctype html><html><body>Sign in</body></html>"),
}


async def _read_head(reader: asyncio.StreamReader) -> _Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return _Request(method, path, {name.lower(): value.strip() for name, _, value in pairs})


def _answer(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode("latin-1") + body


async def _write(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(content)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes a connection by a RST, not a FIN."""
    with contextlib.suppress(OSError):
        # On for 0 seconds.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
