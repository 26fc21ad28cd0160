"""Asks over HTTP so that no server can hold it up or flood it: one deadline, bounded answers, no compression.

httpx times each read and write alone, so a server that sends a byte now and then keeps a request waiting for good.
Here every read and write of a connection gets what is left of the request's own time (`within`).
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

_MOST_CHUNKS = 4096
"""Chunks kept apart: each is an object, of which a server that sends them a byte at a time would make millions."""

_request = threading.local()


class EncodedAnswerError(Exception):
    """Raised when an answer is compressed: what that unpacks to is not known before it is done."""


class LargeAnswerError(Exception):
    """Raised when an answer has more bytes than the caller takes."""


def make_client(**options: Any) -> httpx.Client:
    """Returns an httpx client whose connections keep to `within`, and which asks for answers without compression.

    Args:
      options: of httpx.Client; redirects are not followed.
    """
    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
    client = httpx.Client(headers=headers, follow_redirects=False, **options)
    # httpx has no option for it; httpcore, below it, has.
    for transport in (client._transport, *client._mounts.values()):
        pool: Any = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend()
    return client


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Gives the requests that this thread makes in the block so many seconds in all, from connecting to the last byte.

    After that they raise httpx.TimeoutException. Only the look-up of a host's name is left to the system's own limits.
    """
    _request.until = time.monotonic() + seconds
    try:
        yield
    finally:
        del _request.until


def read_body(answer: httpx.Response, most: int, *, cut: bool = False) -> bytes:
    """Returns the body of a streamed answer.

    Args:
      answer: as `httpx.Client.stream` gives it.
      most: bytes to read at most.
      cut: return the first `most` bytes of a larger body, in place of an error.

    Raises:
      EncodedAnswerError: it is compressed.
      LargeAnswerError: it has more than `most` bytes.
      httpx.HTTPError: it breaks off, or is not there in time.
    """
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise EncodedAnswerError(
            f"the answer is compressed (Content-Encoding: {encoding[:60]}), which was not asked for; turn compression "
            "off on the server, or on the proxy before it"
        )
    announced = answer.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > most and not cut:
        raise LargeAnswerError
    parts: list[bytes] = []
    chunks: list[bytes] = []
    size = 0
    for chunk in answer.iter_raw():
        chunks.append(chunk)
        size += len(chunk)
        if size > most:
            if cut:
                break
            raise LargeAnswerError
        if len(chunks) == _MOST_CHUNKS:
            parts.append(b"".join(chunks))
            chunks = []
    body = b"".join([*parts, *chunks])
    return body[:most] if cut else body


def _left(timeout: float | None, late: type[httpcore.TimeoutException]) -> float | None:
    """The time that a read or write may take: `timeout`, or less if the request has less."""
    until = getattr(_request, "until", None)
    if until is None:
        return timeout
    left: float = until - time.monotonic()
    if left <= 0:
        raise late("the request took too long")
    return left if timeout is None else min(timeout, left)


class _Backend(httpcore.NetworkBackend):
    """Makes connections that keep to the deadline of the request that uses them."""

    def __init__(self) -> None:
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        options = list(socket_options or ())
        late: Exception = httpcore.ConnectError(f"{host} has no address")
        # One by one: tried together, each may take the whole time.
        for address in _addresses(host, port):
            left = _left(timeout, httpcore.ConnectTimeout)
            try:
                return _Stream(self._plain.connect_tcp(address, port, left, local_address, options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                late = error
        raise late

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._plain.connect_unix_socket(path, left, socket_options))

    def sleep(self, seconds: float) -> None:
        self._plain.sleep(seconds)


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore.ConnectError(error) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _Stream(httpcore.NetworkStream):
    """A connection whose every read and write gets what is left of the request's time."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        sock: socket.socket = inner.get_extra_info("socket")
        # TLS to a proxy, and in it to the server: what goes over the socket is not what is written.
        within_tls = isinstance(inner.get_extra_info("ssl_object"), ssl.SSLObject)
        self._socket = None if within_tls else sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._socket is None:
            self._inner.write(buffer, _left(timeout, httpcore.WriteTimeout))
            return
        rest = memoryview(buffer)
        while rest:
            self._socket.settimeout(_left(timeout, httpcore.WriteTimeout))
            try:
                rest = rest[self._socket.send(rest) :]
            except TimeoutError as error:
                raise httpcore.WriteTimeout(error) from error
            except OSError as error:
                raise httpcore.WriteError(error) from error

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
