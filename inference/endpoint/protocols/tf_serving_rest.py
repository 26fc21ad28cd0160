"""Speaks TensorFlow Serving's REST API: https://www.tensorflow.org/tfx/serving/api_rest."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from inference.endpoint.protocols.base import Answer, Request, Response, Target
from inference.endpoint.protocols.definitions import choose, from_json
from inference.endpoint.protocols.instances import JSON, JsonProtocol
from inference.endpoint.protocols.urls import http_address, model_path, name_in
from inference.errors import ResponseError
from model.specs import Signature, TensorSpec


class TFServingRest(JsonProtocol):
    """Sends columns (`{"inputs": {...}}`) or rows (`{"instances": [...]}`) to `/v1/models/M[/versions/V]:predict`."""

    name = "tf_serving_rest"
    tokens = True

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        address = http_address(target, (":predict",))
        self._url = address.whole or f"{address.base}{model_path(target)}:predict"
        self._metadata = f"{address.base}{'' if address.verb else model_path(target)}/metadata{address.query}"
        self._version = target.version or name_in(address.base, "versions")

    def predict(self, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> Request:
        body = self.rows_body(arrays, inputs) if self.target.rows else self.columns_body(arrays, inputs)
        return Request(self._url, body, JSON)

    def read(self, response: Response, rows: int, outputs: Sequence[TensorSpec]) -> Answer:
        columns = self.columns_in(self.answer_in(response), rows, outputs)
        return Answer(columns, response.headers.get("x-model-version") or self._version)

    def describe(self) -> Request:
        return Request(self._metadata)

    def signature(self, response: Response) -> Signature:
        found = self.answer_in(response)
        for key in ("metadata", "signature_def", "signature_def"):
            found = found.get(key, {})
            if type(found) is not dict or not found:
                raise ResponseError(f"the model's metadata has no '{key}'")
        return from_json(self.target.signature, choose(found, self.target.signature))
