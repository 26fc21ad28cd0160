"""KServe's first protocol. What an instance and a prediction look like is up to the model behind it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from inference.endpoint.protocols.base import Answer, Request, Response, Target
from inference.endpoint.protocols.instances import JSON, JsonProtocol
from inference.endpoint.protocols.json_write import TEXTS
from inference.endpoint.protocols.urls import http_address, segment
from model.specs import TensorSpec


class KServeV1(JsonProtocol):
    """Sends `{"instances": [...]}` to `/v1/models/M:predict`.

    KServe's server parses strictly and refuses a bare NaN, but what makes numpy arrays of the instances
    understands "NaN". It answers null where a model predicts NaN or an infinity.
    """

    name = "kserve_v1"
    needs_signature = True
    non_finite = TEXTS

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        if target.version or target.label:
            raise ValueError("version: this protocol has none; leave version and label out")
        address = http_address(target, (":predict",))
        self._url = address.whole or f"{address.base}/v1/models/{segment(target.model, 'model')}:predict"

    def predict(self, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> Request:
        return Request(self._url, self.rows_body(arrays, inputs), JSON)

    def read(self, response: Response, rows: int, outputs: Sequence[TensorSpec]) -> Answer:
        columns = self.columns_in(self.answer_in(response), rows, outputs)
        headers = response.headers
        return Answer(columns, headers.get("model-version") or headers.get("x-model-version"))
