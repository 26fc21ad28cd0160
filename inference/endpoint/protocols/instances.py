"""Does what the APIs share that follow TensorFlow Serving's REST API: bodies, answers and error texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from inference.endpoint.protocols.base import DEFAULT_SIGNATURE, Protocol, Response
from inference.endpoint.protocols.json_read import kind, read, read_columns, read_rows
from inference.endpoint.protocols.json_write import TOKENS, columns_json, rows_json
from inference.endpoint.protocols.responses import error_message, object_in
from inference.errors import ForeignAnswerError, ResponseError
from model.specs import TensorSpec

JSON = {"Content-Type": "application/json"}
MAX_CLOUD_BYTES = 1_500_000
"""The most that Google's prediction services take in one request."""


class JsonProtocol(Protocol):
    """Posts instances or inputs, and reads predictions or outputs.

    Class attributes:
      non_finite: how NaN, Infinity and -Infinity are written.
      tokens: whether an answer may have these, bare.
    """

    non_finite: Sequence[str] = TOKENS
    tokens: bool = False

    def rows_body(self, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> bytes:
        """Returns `{"instances": [{...}, ...]}`."""
        return self._body(b'"instances":', rows_json(arrays, inputs, self.non_finite))

    def columns_body(self, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> bytes:
        """Returns `{"inputs": {"a": [...], ...}}`."""
        return self._body(b'"inputs":', columns_json(arrays, inputs, self.non_finite))

    def _body(self, key: bytes, values: bytes) -> bytes:
        name = self.target.signature
        signature = b"" if name == DEFAULT_SIGNATURE else b'"signature_name":' + orjson.dumps(name) + b","
        return b"".join([b"{", signature, key, values, b"}"])

    def columns_in(self, answer: Mapping[str, Any], rows: int, outputs: Sequence[TensorSpec]) -> dict[str, pa.Array]:
        """Returns the columns of an answer in either form. Raises ResponseError."""
        if "predictions" in answer:
            return read_rows(answer["predictions"], rows, outputs)
        if "outputs" not in answer:
            there = ", ".join(map(repr, list(answer)[:20])) or "nothing"
            raise ForeignAnswerError(f"the answer has no predictions; it has {there}"[:500])
        found = answer["outputs"]
        if type(found) is dict:
            return read_columns(found, rows, outputs)
        if len(outputs) != 1:
            raise ResponseError(f"the outputs are {kind(found)}, not an object of {len(outputs)} outputs")
        return {outputs[0].name: read(found, outputs[0], rows)}

    def answer_in(self, response: Response, *, tokens: bool | None = None) -> dict[str, Any]:
        """Returns the JSON object in a response. Raises ResponseError, RequestRefusedError."""
        return object_in(response, tokens=self.tokens if tokens is None else tokens)

    def error_message(self, response: Response) -> str:
        return error_message(response)
