"""Speaks Vertex AI's `endpoints.predict` and `endpoints.rawPredict`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import is_list
from inference.endpoint.protocols.base import DEFAULT_SIGNATURE, Answer, Request, Response, Target
from inference.endpoint.protocols.instances import JSON, MAX_CLOUD_BYTES, JsonProtocol
from inference.endpoint.protocols.urls import http_address, segment
from inference.errors import RowError
from model.specs import TensorSpec

_RESOURCE = re.compile(r"projects/[\w.:-]+/locations/([\w-]+)/endpoints/[\w.-]+", re.ASCII)
_RAW = ":rawPredict"
_EXACT = 2**53


class Vertex(JsonProtocol):
    """Sends `{"instances": [...]}` to `/v1/projects/P/locations/L/endpoints/E:predict`.

    Raw, the container gets the body as it is: TensorFlow Serving's columns, to `:rawPredict`.
    """

    name = "vertex"
    max_request_bytes = MAX_CLOUD_BYTES
    needs_signature = True

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        if target.version or target.label:
            raise ValueError("version: an endpoint decides which version answers; leave version and label out")
        if target.url is None and target.resource is None:
            raise ValueError("resource: it is missing; name the endpoint as projects/P/locations/L/endpoints/E")
        resource, host = self._resource()
        address = http_address(target, (":predict", _RAW), host)
        if target.raw and address.verb == ":predict":
            raise ValueError("raw: the url ends with :predict; end it with :rawPredict")
        self._raw = target.raw or address.verb == _RAW
        if not self._raw and target.signature != DEFAULT_SIGNATURE:
            raise ValueError(f"signature: :predict calls {DEFAULT_SIGNATURE} only; for another one, use raw")
        self._url = address.whole or f"{address.base}/v1/{resource}{_RAW if self._raw else ':predict'}"

    def _resource(self) -> tuple[str, str | None]:
        """The endpoint and the host of its location."""
        if self.target.resource is None:
            return f"projects/-/locations/-/endpoints/{segment(self.target.model, 'model')}", None
        found = _RESOURCE.fullmatch(self.target.resource)
        if not found:
            raise ValueError(f"resource: '{self.target.resource}' is not projects/P/locations/L/endpoints/E")
        region = "" if found[1] == "global" else f"{found[1]}-"
        return self.target.resource, f"https://{region}aiplatform.googleapis.com"

    def predict(self, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> Request:
        if not self._raw:
            _refuse_large(arrays, inputs)
        body = self.columns_body(arrays, inputs) if self._raw else self.rows_body(arrays, inputs)
        return Request(self._url, body, JSON)

    def read(self, response: Response, rows: int, outputs: Sequence[TensorSpec]) -> Answer:
        # A raw answer is TensorFlow Serving's own, which may have NaN.
        answer = self.answer_in(response, tokens=self._raw)
        version = answer.get("modelVersionId") or response.headers.get("x-model-version")
        return Answer(self.columns_in(answer, rows, outputs), str(version) if version else None)


def _refuse_large(arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> None:
    """The service holds instances as protobuf's Values, whose only number is a float64: it would round."""
    for array, spec in zip(arrays, inputs, strict=True):
        while is_list(array.type):
            array = array.flatten()
        if not (pa.types.is_integer(array.type) and array.type.bit_width == 64 and len(array)):
            continue
        found = pc.min_max(array).as_py()
        if max(abs(found["min"]), abs(found["max"])) > _EXACT:
            raise RowError(f"input '{spec.name}': an integer beyond 2^53, which :predict would round; use raw")
