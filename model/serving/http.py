"""Handles prediction requests over HTTP: bodies within their limit, answers, errors, answers spoiled on purpose."""

import socket
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from model.serving.connections import ClientConnection
from model.serving.errors import RequestError, Status, invalid, note, too_large
from model.serving.service import Held, Query, Service
from model.serving.tensors import Arrays

_DISCARDED_BODIES = 16
_GZIP = ("gzip", "x-gzip")
_MOST_UNPACKED = 1032
"""How many times as large as itself gzip may become."""
_HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in to continue</h1></body></html>\n"


@dataclass(frozen=True)
class HttpAnswer:
    """Describes the body of an answer, and what is particular about it."""

    body: bytes
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Render = Callable[[Arrays], HttpAnswer]
Parse = Callable[[Service, Request, bytes], tuple[Query, Render]]
"""Makes of a request and its body what it asks for, and what makes an answer of the outputs."""


@dataclass(frozen=True)
class HttpProtocol:
    """Serves a protocol over HTTP.

    Attributes:
      name: in the counters.
      parse: reads a request; raises RequestError.
      error: the body of an answer that is an error.
    """

    name: str
    parse: Parse
    error: Callable[[RequestError], bytes]

    def response(self, error: RequestError) -> Response:
        """Returns the answer that is an error."""
        headers = {}
        if error.retry_after is not None:
            headers["retry-after"] = f"{error.retry_after:g}"
        if error.status in (Status.TOO_LARGE, Status.UNSUPPORTED):
            headers["connection"] = "close"
        return Response(self.error(error), error.status.http, headers, "application/json")


Handler = Callable[[Request], Awaitable[Response]]


def guarded(api: HttpProtocol, handler: Callable[[Request], Response]) -> Handler:
    """Returns an endpoint other than predictions, whose errors are the protocol's."""

    async def endpoint(request: Request) -> Response:
        try:
            return handler(request)
        except RequestError as error:
            return api.response(error)

    return endpoint


def prediction(service: Service, path: str, api: HttpProtocol) -> Route:
    """Returns the route of prediction requests of a protocol."""

    async def endpoint(request: Request) -> Response:
        with service.counted(api.name) as outcome, service.held() as held:
            try:
                body = await _plain(service, request, held)
                response = await _answer(service, api, request, body)
            except ClientDisconnect:
                outcome.code = "499"
                return Response(status_code=400)
            except RequestError as error:
                response = api.response(error)
            except Exception as error:
                note(f"a request failed: {type(error).__name__}: {error}")
                response = api.response(RequestError(Status.INTERNAL, f"{type(error).__name__} in the server"))
            outcome.code = "reset" if isinstance(response, ResetResponse) else str(response.status_code)
            return response

    return Route(path, endpoint, methods=["POST"])


async def _answer(service: Service, api: HttpProtocol, request: Request, body: bytes) -> Response:
    fault = await service.admit()
    if fault == "reset":
        return ResetResponse()
    if fault == "html":
        return Response(_HTML, 200, media_type="text/html")
    query, render = await service.apart(len(body), lambda: api.parse(service, request, body))
    outputs = await service.predict(query, fault)
    answer = await service.apart(sum(array.nbytes for array in outputs.values()), lambda: render(outputs))
    headers = {**answer.headers, "x-model-version": str(query.servable.version.number)}
    kind = _Truncated if fault == "truncated" else Response
    return kind(answer.body, 200, headers, answer.media_type)


async def _plain(service: Service, request: Request, held: Held) -> bytes:
    """Reads a body, and unpacks one that was compressed."""
    limit = service.options.max_body_bytes
    body = await _body(request, limit, held)
    if _encoding(request) not in _GZIP:
        return body
    # What it becomes is known when it is there; a body of a few bytes may become a thousand times as many.
    unpacked = await service.apart(len(body) * _MOST_UNPACKED, lambda: _gunzipped(body, limit))
    held.add(len(unpacked) - len(body))
    return unpacked


def _gunzipped(data: bytes, limit: int) -> bytes:
    """Unpacks gzip of one member, no more than `limit` bytes."""
    reader = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        unpacked = reader.decompress(data, limit + 1)
    except zlib.error as error:
        raise invalid(f"the body is not gzip, as its content-encoding says: {error}") from error
    if len(unpacked) > limit:
        raise _too_large(limit)
    if not reader.eof or reader.unused_data:
        what = "has something behind its end" if reader.eof else "breaks off"
        raise invalid(f"the body is gzip that {what}")
    return unpacked


async def _body(request: Request, limit: int, held: Held) -> bytes:
    """Reads a body. One that is refused is read to its end, within reason, so that the client reads the answer."""
    length = request.headers.get("content-length", "")
    declared = int(length) if length.isdecimal() else 0
    refusal = _too_large(limit) if declared > limit else _wrong_encoding(request)
    if declared > limit * _DISCARDED_BODIES:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit and refusal is None:
            refusal = _too_large(limit)
            chunks.clear()
        if size > limit * _DISCARDED_BODIES:
            break
        if refusal is None:
            try:
                held.add(len(chunk))
                chunks.append(chunk)
            except RequestError as error:
                refusal = error
                chunks.clear()
        if refusal is not None:
            held.release()
    if refusal is not None:
        raise refusal
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _wrong_encoding(request: Request) -> RequestError | None:
    encoding = _encoding(request)
    if encoding not in ("", "identity", *_GZIP):
        message = f"content encoding {encoding!r} is not taken; send the body as it is, or in gzip"
        return RequestError(Status.UNSUPPORTED, message)
    return None


def _encoding(request: Request) -> str:
    return ", ".join(request.headers.getlist("content-encoding")).strip().lower()


def _too_large(limit: int) -> RequestError:
    return too_large(
        f"Request payload size exceeds the limit: {limit} bytes. Send fewer rows a request, or raise --max-body-mb."
    )


class ResetResponse(Response):
    """Gives no answer: the connection is reset."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = ClientConnection.of(scope)
        if transport is not None:
            connection: Any = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            await receive()  # until uvicorn knows, too


class _Truncated(Response):
    """Half of the body that the headers announce, then the connection's end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})
        transport = ClientConnection.of(scope)
        if transport is not None:
            transport.close()
            await receive()
