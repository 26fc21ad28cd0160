"""Defines what a protocol does: the rows of a slice become the body of a request, and its answer columns again.

A protocol knows bodies, names and addresses. It opens no connection, retries nothing, and knows no credentials.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from model.specs import Signature, TensorSpec

DEFAULT_MODEL = "default"
DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Target:
    """Describes which model a protocol addresses, and where.

    Attributes:
      url: of the server, without a path (`http://127.0.0.1:8501`) or with the whole path of the prediction; None
        for the cloud service's own host. For gRPC `host:port`, or with a scheme: `grpc://`, `grpcs://` (TLS).
      resource: the cloud resource's name, such as projects/P/models/M/versions/V; None elsewhere.
      model: the model's name on the server.
      version: a version to ask for; None for the one that the server chooses.
      label: a version's label, in place of `version`.
      signature: the signature's name, where the protocol can name one.
      raw: Vertex AI: hand the body to the container as it is (`:rawPredict`).
      rows: TensorFlow Serving's REST API: one object a row, in place of one list a column.
      binary: the Open Inference Protocol: all tensors as bytes behind the JSON, in place of lists of numbers.
    """

    url: str | None = field(default=None, repr=False)  # it may hold a key
    resource: str | None = None
    model: str = DEFAULT_MODEL
    version: str | None = None
    label: str | None = None
    signature: str = DEFAULT_SIGNATURE
    raw: bool = False
    rows: bool = False
    binary: bool = False


@dataclass(frozen=True)
class Request:
    """Describes an HTTP request.

    Attributes:
      url: whole address.
      body: what to post; None for a GET.
      headers: of the body, such as its content type.
    """

    url: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    """Describes an HTTP response with status 200.

    Attributes:
      body: whole body, already decompressed.
      headers: names in lower case.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """Holds what a server predicted.

    Attributes:
      columns: output's name -> its values as `inference.tensors.output_type` says, one for each row asked for.
      version: the model version that answered, if the answer tells.
    """

    columns: dict[str, pa.Array]
    version: str | None = None


class Protocol(ABC):
    """Builds the requests of a server API over HTTP, or over gRPC (where a request's url is the method's path, bodies
    are messages), and reads its answers.

    Class attributes:
      name: as configs name it.
      transport: "http" or "grpc".
      max_request_bytes: the service's limit of a body; None if it has none.
      needs_signature: the server cannot tell what the model takes: `signature_from` or `inputs` must.

    Args:
      target: the model.

    Raises:
      ValueError: the target lacks something, or names it wrongly; the message says what to set.
    """

    name: str
    transport: str = "http"
    max_request_bytes: int | None = None
    needs_signature: bool = False

    def __init__(self, target: Target) -> None:
        self.target = target

    @abstractmethod
    def predict(self, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> Request:
        """Returns the request for some rows.

        Args:
          arrays: one for each input, without nulls, all as long as there are rows: plain values, dictionaries of
            text, or (nested) lists of one length, of the types in `inference.columns.binding.arrow_type`.
          inputs: the inputs, all dense.

        Raises:
          RowError: a value that the protocol cannot carry.
        """

    @abstractmethod
    def read(self, response: Response, rows: int, outputs: Sequence[TensorSpec]) -> Answer:
        """Returns the answer in a response.

        Raises:
          RequestRefusedError: the response says that the model cannot predict these rows.
          ResponseError: it is no answer to a request of `rows` rows: not JSON, truncated, another number of rows,
            a value that is missing or of another kind.
        """

    @abstractmethod
    def error_message(self, response: Response) -> str:
        """Returns what the body of an error response says, on one line of at most 500 characters."""

    def describe(self) -> Request | None:
        """Returns the request for the model's inputs and outputs, if the protocol has one."""
        return None

    def signature(self, response: Response) -> Signature:
        """Returns the signature in the response to `describe`. Raises ResponseError."""
        raise NotImplementedError
