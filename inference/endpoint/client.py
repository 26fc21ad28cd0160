"""Asks a model on a server: many requests at once, each again until it succeeds."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa

from inference.endpoint.protocols import protocol_class
from inference.endpoint.protocols.base import Answer, Protocol, Response, Target
from inference.endpoint.protocols.urls import VERBS
from inference.endpoint.retries import ModelServerRetries, Retries
from inference.endpoint.secrets import FixedHeaders, GoogleHeaders, Headers, check_headers
from inference.endpoint.throttle import Throttle
from inference.endpoint.transports import Connection, GrpcTransport, HttpTransport, Transport, address
from inference.errors import EndpointConfigError, EndpointError, RequestTooLargeError, ResponseError
from model.hosts import is_loopback
from model.secrets import Secret, keep_in_url, known_in, masked, masked_bytes
from model.specs import Signature, TensorSpec

T = TypeVar("T")
_GOOGLE = ".googleapis.com"
_MAX_METADATA_BYTES = 16 << 20


@dataclass(frozen=True)
class Endpoint:
    """Describes a model on a server: where it is, which API it speaks, and how to call it.

    Attributes:
      protocol: ai_platform, vertex, tf_serving_rest, tf_serving_grpc, kserve_v1 or kserve_v2; or a Protocol of one's
        own.
      target: the model's address.
      max_in_flight: requests at a time, of one worker process.
      timeout_s: for a whole request.
      connect_timeout_s: for a connection to be made.
      retry_limits: when to give up on a row.
      max_request_bytes: largest body; None for what the service takes.
      headers: sent with each request, for example an API key.
      google_credentials: whether to send a token of Google's default credentials; None to do so if the host is
        one of Google's.
      ca_file: certificates to trust, in PEM; None for the system's.
      hidden: secrets in the address; they travel with it, to be masked wherever it is used.

    Raises:
      ValueError: a header that cannot be sent.
    """

    protocol: str | type[Protocol]
    target: Target = field(default_factory=Target)
    max_in_flight: int = 8
    timeout_s: float = 60
    connect_timeout_s: float = 10
    retry_limits: ModelServerRetries = field(default_factory=ModelServerRetries)
    max_request_bytes: int | None = None
    headers: Mapping[str, Secret] = field(default_factory=dict)
    google_credentials: bool | None = None
    ca_file: str | None = None
    hidden: tuple[Secret, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_headers(self.headers)
        url = self.target.url or ""
        object.__setattr__(self, "hidden", tuple(map(Secret, [*keep_in_url(url), *known_in(url)])))

    @property
    def name(self) -> str:
        """Returns the endpoint as messages and dead letters name it: without what follows a question mark, and
        secrets.
        """
        return masked(self._name)

    @property
    def _name(self) -> str:
        target = self.target
        if target.resource:
            return f"{self.protocol_name}:{target.resource}"
        url = (target.url or "").partition("?")[0].rstrip("/")
        whole = url.endswith(VERBS)
        version = f"/{target.version or target.label}" if target.version or target.label else ""
        return f"{self.protocol_name}:{url}" + ("" if whole else f"/{target.model}{version}")

    @property
    def protocol_name(self) -> str:
        """Returns the protocol as configs and messages name it."""
        return self.protocol if isinstance(self.protocol, str) else self.protocol.name

    def make_protocol(self) -> Protocol:
        """Returns what builds its requests. Raises ValueError: the address is wrong."""
        found = protocol_class(self.protocol) if isinstance(self.protocol, str) else self.protocol
        return found(self.target)

    @property
    def unencrypted(self) -> str:
        """Returns what of the requests others on the way can read and should not; empty if there is nothing."""
        host = _host(self)
        if _scheme(self) not in ("http", "grpc", "") or not host or is_loopback(host):
            return ""
        named = [f"headers ({', '.join(self.headers)})"] if self.headers else []
        return " and ".join([*named, *(["the query of the url"] if "?" in (self.target.url or "") else [])])


class Client:
    """Asks an endpoint; used by all threads of a process at once.

    Args:
      endpoint: the server.
      clock: seconds, monotonic.
      sleep: waits that many seconds.

    Raises:
      EndpointConfigError: there are no credentials; the address is wrong.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.endpoint = endpoint
        try:
            self.protocol = endpoint.make_protocol()
        except ValueError as error:
            raise EndpointConfigError(str(error)) from None
        host = _host(endpoint)
        self._headers = _headers(endpoint, host)
        self._transport = _connect(endpoint, self.protocol, host, self._headers)
        self.throttle = Throttle(clock, sleep)
        self.retries = Retries(endpoint.retry_limits, self.throttle, clock, sleep)
        self.pool = ThreadPoolExecutor(endpoint.max_in_flight, "request")
        self._limit = endpoint.max_request_bytes or self.protocol.max_request_bytes
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(self.retries.counts(), 0)
        self._bytes_sent = 0
        self.rows_that_fit: int | None = None

    def predict(
        self, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], deadline: float
    ) -> Answer:
        """Returns the predictions of some rows, in one request.

        Args:
          arrays: one for each input.
          inputs: the inputs.
          outputs: the outputs that are wanted.
          deadline: see `Retries.deadline`.

        Raises:
          EndpointError: there are none.
          RowError: a value cannot be sent.
        """
        rows = len(arrays[0])
        request = self.protocol.predict(arrays, inputs)
        size = len(request.body or b"")
        self._check_size(size, rows)

        def send() -> Answer:
            with self._lock:
                self._bytes_sent += size
            response = self._transport.send(request, self.protocol.error_message)
            return self._read(lambda answer: self.protocol.read(answer, rows, outputs), response)

        return self._named(lambda: self.retries.call(send, rows, deadline))

    def signature(self) -> Signature:
        """Returns what the model takes and gives, as the server says. Raises EndpointError."""
        request = self.protocol.describe()
        if request is None:
            raise EndpointConfigError(
                f"{self.endpoint.protocol_name} servers do not tell what a model takes: set model.signature_from to "
                "its SavedModel, or list model.inputs"
            )
        deadline = self.retries.deadline()

        def send() -> Signature:
            response = self._transport.send(request, self.protocol.error_message)
            if len(response.body) > _MAX_METADATA_BYTES:
                raise ResponseError(f"the model's metadata has more than {_MAX_METADATA_BYTES >> 20} MiB")
            return self._read(self.protocol.signature, response)

        return self._named(lambda: self.retries.call(send, 1, deadline))

    def counts(self) -> dict[str, int]:
        """Returns requests, and bytes of those that ask for predictions, since the last call of this."""
        with self._lock:
            found = {**self.retries.counts(), "bytes_sent": self._bytes_sent}
            new = {name: count - self._counts.get(name, 0) for name, count in found.items()}
            self._counts = found
        return new

    def close(self) -> None:
        """Closes the connections and ends the threads."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self._transport.close()

    def _read(self, read: Callable[[Response], T], response: Response) -> T:
        try:
            return read(response)
        except EndpointError:
            # The message may quote the answer, cut, and the answer a secret.
            body = masked_bytes(response.body)
        return read(Response(body, response.headers))

    def _named(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except EndpointConfigError as error:
            raise EndpointConfigError(f"{self.endpoint.name}: {error}") from None

    def _check_size(self, size: int, rows: int) -> None:
        limit = self._limit
        if limit is None or size <= limit:
            return
        self.rows_that_fit = max(1, min(self.rows_that_fit or rows, int(rows * 0.95 * limit / size)))
        error = RequestTooLargeError(f"the row makes a request of {size:,} bytes, and at most {limit:,} are taken")
        error.parts = max(2, math.ceil(rows / self.rows_that_fit))
        raise error


def _connect(endpoint: Endpoint, protocol: Protocol, host: str, headers: Headers) -> Transport:
    connection = Connection(
        headers=headers,
        connect_timeout_s=endpoint.connect_timeout_s,
        timeout_s=endpoint.timeout_s,
        connections=endpoint.max_in_flight,
        ca_file=endpoint.ca_file,
    )
    try:
        if protocol.transport == "grpc":
            return GrpcTransport(connection, host, secure=_scheme(endpoint) in ("grpcs", "https"))
        return HttpTransport(connection, host)
    except OSError as error:
        raise EndpointConfigError(f"ca_file {endpoint.ca_file}: {error.strerror or error}") from None


def _scheme(endpoint: Endpoint) -> str:
    url = endpoint.target.url or "https://"
    return url.partition("://")[0].lower() if "://" in url else ""


def _host(endpoint: Endpoint) -> str:
    """host:port that is connected to; empty for a cloud service's own."""
    url = endpoint.target.url
    if url is None:
        return ""
    return address(url).netloc


def _headers(endpoint: Endpoint, host: str) -> Headers:
    google = endpoint.google_credentials
    if google is None:
        google = not host or f".{host.partition(':')[0]}".endswith(_GOOGLE)
    if not google:
        return FixedHeaders(endpoint.headers)
    if _scheme(endpoint) in ("http", "grpc", "") and not is_loopback(host):
        raise EndpointConfigError("Google credentials are not sent over an unencrypted connection; use https")
    return GoogleHeaders(endpoint.headers)
