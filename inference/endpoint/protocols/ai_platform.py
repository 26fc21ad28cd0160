"""Speaks AI Platform's `projects.predict`, version 1."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from inference.endpoint.protocols.base import Answer, Request, Response, Target
from inference.endpoint.protocols.instances import JSON, MAX_CLOUD_BYTES, JsonProtocol
from inference.endpoint.protocols.urls import http_address, name_in, segment
from model.specs import TensorSpec

_HOST = "https://ml.googleapis.com"
_RESOURCE = re.compile(r"(projects/[\w.:-]+/models/[\w.-]+)(?:/versions/([\w.-]+))?", re.ASCII)


class AIPlatform(JsonProtocol):
    """Sends `{"instances": [...]}` to `/v1/projects/P/models/M[/versions/V]:predict`."""

    name = "ai_platform"
    max_request_bytes = MAX_CLOUD_BYTES
    needs_signature = True

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        if target.label:
            raise ValueError("label: AI Platform's versions have none; name a version")
        if target.url is None and target.resource is None:
            raise ValueError("resource: it is missing; name the model as projects/P/models/M")
        address = http_address(target, (":predict",), _HOST)
        self._version: str | None = name_in(address.base, "versions")
        self._url = address.whole or f"{address.base}/v1/{self._resource()}:predict"

    def _resource(self) -> str:
        version = self.target.version
        if self.target.resource is None:
            name = f"projects/-/models/{segment(self.target.model, 'model')}"
        else:
            found = _RESOURCE.fullmatch(self.target.resource)
            if not found:
                raise ValueError(f"resource: '{self.target.resource}' is not projects/P/models/M[/versions/V]")
            name = found[1]
            if found[2] and version not in (None, found[2]):
                raise ValueError(f"version: '{version}', but the resource names version '{found[2]}'; leave one out")
            version = found[2] or version
        self._version = version
        return f"{name}/versions/{segment(version, 'version')}" if version else name

    def predict(self, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> Request:
        return Request(self._url, self.rows_body(arrays, inputs), JSON)

    def read(self, response: Response, rows: int, outputs: Sequence[TensorSpec]) -> Answer:
        columns = self.columns_in(self.answer_in(response), rows, outputs)
        return Answer(columns, response.headers.get("x-model-version") or self._version)
