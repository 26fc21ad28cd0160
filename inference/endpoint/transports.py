"""Sends requests over HTTP or gRPC, on connections that are kept, and says what a failure means.

| HTTP | gRPC | exception |
|---|---|---|
| 401, 403, 404, 405, 501, 3xx | UNAUTHENTICATED, PERMISSION_DENIED, NOT_FOUND, UNIMPLEMENTED | EndpointConfigError |
| 429 | RESOURCE_EXHAUSTED | QuotaError |
| 413 | RESOURCE_EXHAUSTED for the size of a message | RequestTooLargeError |
| other 4xx | INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE | RequestRefusedError |
| 408, 502, 503, 504, no connection, no answer in time | UNAVAILABLE, DEADLINE_EXCEEDED, ABORTED | TransientError |
| other 5xx | INTERNAL, UNKNOWN, DATA_LOSS | ServerError |
| an answer that breaks off, or is larger than MAX_RESPONSE_BYTES | | ResponseError |
"""

from __future__ import annotations

import email.utils
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import httpx

from inference.endpoint.protocols.base import Request, Response
from inference.endpoint.secrets import Headers
from inference.errors import (
    EndpointConfigError,
    EndpointError,
    QuotaError,
    RequestRefusedError,
    RequestTooLargeError,
    ResponseError,
    ServerError,
    TransientError,
)
from model.hosts import is_loopback
from model.http_client import EncodedAnswerError, LargeAnswerError, make_client, read_body, within
from model.secrets import masked, masked_bytes

MAX_RESPONSE_BYTES = 256 << 20
MAX_ERROR_BYTES = 1 << 20
"""Of an answer that says an error, so much is read."""

Explain = Callable[[Response], str]
"""What the body of an error response says."""

_HTTP_CONFIG = frozenset({401, 403, 404, 405, 501})
_HTTP_TRANSIENT = frozenset({408, 502, 503, 504})
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_UNTRUSTED_ADVICE = "the server's certificate is not trusted; name its authority's in ca_file, or check the address"
_ADVICE = {
    401: "; check the credentials",
    403: "; check the credentials and their permissions",
    404: "; check the address, the model's name and its version",
}


@dataclass(frozen=True)
class Connection:
    """Describes how to connect to a server.

    Attributes:
      headers: headers that identify the caller.
      connect_timeout_s: for a connection to be made.
      timeout_s: for a whole request.
      connections: most at a time.
      ca_file: certificates to trust, in PEM; None for the system's.
    """

    headers: Headers
    connect_timeout_s: float = 10
    timeout_s: float = 60
    connections: int = 8
    ca_file: str | None = None


class Transport(Protocol):
    """Sends requests; used by many threads at once."""

    def send(self, request: Request, explain: Explain) -> Response:
        """Returns the response. Raises EndpointError."""

    def close(self) -> None:
        """Closes all connections."""


class HttpTransport(Transport):
    """Sends requests by HTTP/1.1 on kept connections."""

    def __init__(self, connection: Connection, host: str) -> None:
        self._connection = connection
        timeout = httpx.Timeout(connection.timeout_s, connect=connection.connect_timeout_s)
        limits = httpx.Limits(
            max_connections=connection.connections,
            max_keepalive_connections=connection.connections,
            # Servers such as uvicorn close idle connections after 5 s.
            keepalive_expiry=4,
        )
        # It would log addresses, which may hold keys.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = make_client(
            timeout=timeout,
            limits=limits,
            verify=trusted(connection.ca_file),
            # A proxy is for what is elsewhere.
            trust_env=not is_loopback(host),
        )

    def send(self, request: Request, explain: Explain) -> Response:
        headers = {**request.headers, **self._connection.headers()}
        method = "GET" if request.body is None else "POST"
        try:
            with (
                within(self._connection.timeout_s),
                self._client.stream(method, request.url, content=request.body, headers=headers) as answer,
            ):
                status = answer.status_code
                body = _body(answer)
                response = Response(body, {name.lower(): value for name, value in answer.headers.items()})
        except httpx.TimeoutException as error:
            raise TransientError(f"no answer in time ({type(error).__name__})") from None
        except httpx.RemoteProtocolError as error:
            if "location header" in str(error):
                raise EndpointConfigError("the server answers with a redirect: it is elsewhere") from None
            raise ResponseError(f"the answer breaks off: {error}") from None
        except httpx.LocalProtocolError:
            # Its text shows the header.
            raise EndpointConfigError("a header cannot be sent: it has a character that none may have") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise EndpointConfigError(f"the address is wrong: {error}") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            if _UNTRUSTED in str(error):
                raise EndpointConfigError(_UNTRUSTED_ADVICE) from None
            raise TransientError(f"no connection: {str(error) or type(error).__name__}") from None
        if 200 <= status < 300:
            return response
        raise _http_error(status, said(response, explain), response)

    def close(self) -> None:
        self._client.close()


def _body(answer: httpx.Response) -> bytes:
    """The body of an answer; of one that says an error, the beginning."""
    if not answer.is_success:
        try:
            return read_body(answer, MAX_ERROR_BYTES, cut=True)
        except EncodedAnswerError as error:
            return str(error).encode()
    try:
        return read_body(answer, MAX_RESPONSE_BYTES)
    except EncodedAnswerError as error:
        raise EndpointConfigError(str(error)) from None
    except LargeAnswerError:
        raise ResponseError(f"the answer has more than {MAX_RESPONSE_BYTES >> 20} MiB") from None


def said(response: Response, explain: Explain) -> str:
    """Returns what an error response says, without the secrets that it repeats, whole, cut or escaped."""
    return masked(explain(Response(masked_bytes(response.body), response.headers)))


def _http_error(status: int, said: str, response: Response) -> EndpointError:
    text = f"{status}: {said}" if said else str(status)
    error: EndpointError
    if status in _HTTP_CONFIG:
        return EndpointConfigError(f"the server answers {text}{_ADVICE.get(status, '')}")
    if 300 <= status < 400:
        return EndpointConfigError(f"the server answers {status}: it is elsewhere ({_location(response)})")
    if status == 413:
        return RequestTooLargeError(text)
    if status == 429:
        error = QuotaError(text)
    elif status in _HTTP_TRANSIENT:
        error = TransientError(text)
    elif status >= 500:
        error = ServerError(text)
    else:
        return RequestRefusedError(text)
    error.retry_after = retry_after(response.headers.get("retry-after"))
    return error


def _location(response: Response) -> str:
    try:
        parts = urlsplit(masked(response.headers.get("location", "")))
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{parts.hostname}" if parts.hostname else "a relative address"


def retry_after(text: str | None) -> float | None:
    """Returns seconds of a Retry-After header: a number, or a date."""
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def trusted(ca_file: str | None) -> Any:
    """Returns the certificates in a file, as httpx takes them. Raises OSError: there are none."""
    if ca_file is None:
        return True
    import ssl

    return ssl.create_default_context(cafile=ca_file)


def address(url: str) -> SplitResult:
    """Returns the parts of an address that may lack a scheme, as gRPC's do."""
    return urlsplit(url if "://" in url else f"//{url}")


class GrpcTransport(Transport):
    """Sends requests by gRPC; a request's url is the method, bodies are serialized messages."""

    def __init__(self, connection: Connection, host: str, *, secure: bool) -> None:
        import grpc

        self._grpc = grpc
        self._connection = connection
        options = [
            ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
            ("grpc.max_send_message_length", -1),
            # A server that comes back is found within a second.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", 0 if is_loopback(host) else 1),
        ]
        if secure:
            certificates = None
            if connection.ca_file:
                with open(connection.ca_file, "rb") as file:
                    certificates = file.read()
            self._channel = grpc.secure_channel(host, grpc.ssl_channel_credentials(certificates), options)
        else:
            self._channel = grpc.insecure_channel(host, options)

    def send(self, request: Request, explain: Explain) -> Response:
        call = self._channel.unary_unary(request.url)
        metadata = [(name.lower(), value) for name, value in self._connection.headers().items()]
        try:
            return Response(call(request.body or b"", timeout=self._connection.timeout_s, metadata=metadata))
        except self._grpc.RpcError as error:
            code = error.code().name
            details = Response(str(error.details() or "").encode())
            raise _grpc_error(code, said(details, explain)) from None

    def close(self) -> None:
        self._channel.close()


_GRPC_CONFIG = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "UNIMPLEMENTED"})
_GRPC_REFUSED = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "ALREADY_EXISTS"})
_GRPC_TRANSIENT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED"})


def _grpc_error(code: str, said: str) -> EndpointError:
    text = f"{code}: {said}" if said else code
    if _UNTRUSTED in said:
        return EndpointConfigError(_UNTRUSTED_ADVICE)
    if code in _GRPC_CONFIG:
        advice = {"NOT_FOUND": 404, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}.get(code, 0)
        return EndpointConfigError(f"the server answers {text}{_ADVICE.get(advice, '')}")
    if code == "RESOURCE_EXHAUSTED":
        return RequestTooLargeError(text) if "larger than max" in said else QuotaError(text)
    if code in _GRPC_REFUSED:
        return RequestRefusedError(text)
    return TransientError(text) if code in _GRPC_TRANSIENT else ServerError(text)
