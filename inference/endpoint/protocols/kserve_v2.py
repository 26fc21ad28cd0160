"""Speaks the Open Inference Protocol (KServe's second), as KServe, MLServer and Triton do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from inference.columns.bound import arrow_type
from inference.columns.coercion import is_bytes
from inference.endpoint.protocols.base import Answer, Protocol, Request, Response, Target
from inference.endpoint.protocols.definitions import made_of
from inference.endpoint.protocols.flat import flatten, nest
from inference.endpoint.protocols.instances import JSON
from inference.endpoint.protocols.json_read import flat_leaves, kind, require
from inference.endpoint.protocols.json_write import TEXTS, tensor_json
from inference.endpoint.protocols.kserve_tensors import datatype_of, dtype_of, from_binary, to_binary
from inference.endpoint.protocols.responses import error_message, object_in
from inference.endpoint.protocols.urls import http_address, name_in, segment
from inference.errors import EndpointConfigError, ResponseError, RowError
from model.specs import Signature, TensorSpec

_LENGTH_HEADER = "Inference-Header-Content-Length"


class KServeV2(Protocol):
    """Sends tensors to `/v2/models/M[/versions/V]/infer`.

    As JSON, NaN and infinities travel as text, which KServe and MLServer understand; bytes that are not UTF-8
    cannot. With `Target.binary` all tensors travel as bytes behind the JSON, exactly; MLServer cannot do that.
    An answer is read in the form it has.
    """

    name = "kserve_v2"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        if target.label:
            raise ValueError("label: this protocol has none; name a version")
        address = http_address(target, ("/infer",))
        path = "" if address.verb else f"/v2/models/{segment(target.model, 'model')}"
        if target.version:  # not beside a whole address, which names its own
            path += f"/versions/{segment(target.version, 'version')}"
        self._metadata = f"{address.base}{path}{address.query}"
        self._url = f"{address.base}{path}/infer{address.query}"
        self._version = target.version or name_in(address.base, "versions")

    def predict(self, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> Request:
        tensors, tail = [], []
        for array, spec in zip(arrays, inputs, strict=True):
            values, sizes = flatten(array, spec)
            tensor: dict[str, Any] = {"name": spec.name, "shape": sizes, "datatype": datatype_of(spec.dtype)}
            if self.target.binary:
                tail.append(to_binary(values, spec.dtype))
                tensor["parameters"] = {"binary_data_size": len(tail[-1])}
            else:
                tensor["data"] = orjson.Fragment(tensor_json(_as_text(values, spec), [len(values)], TEXTS))
            tensors.append(tensor)
        body: dict[str, Any] = {"inputs": tensors}
        if not self.target.binary:
            return Request(self._url, orjson.dumps(body), JSON)
        head = orjson.dumps({**body, "parameters": {"binary_data_output": True}})
        headers = {"Content-Type": "application/octet-stream", _LENGTH_HEADER: str(len(head))}
        return Request(self._url, b"".join([head, *tail]), headers)

    def read(self, response: Response, rows: int, outputs: Sequence[TensorSpec]) -> Answer:
        head, tail = _cut(response)
        answer = object_in(head)
        found = answer.get("outputs")
        if type(found) is not list:
            raise ResponseError(f"the outputs are {kind(found)}, not a list of tensors")
        tensors, place = {}, 0
        for tensor in found:
            if type(tensor) is not dict or not isinstance(tensor.get("name"), str):
                raise ResponseError("the answer has an output without a name")
            size = _binary_size(tensor)
            tensors[tensor["name"]] = (tensor, place)
            place += size or 0
        if place != len(tail):
            raise ResponseError(f"the answer has {len(tail)} bytes behind its JSON, where it names {place}")
        require(tensors, outputs)
        columns = {spec.name: _column(*tensors[spec.name], tail, spec, rows) for spec in outputs}
        version = answer.get("model_version")
        return Answer(columns, str(version) if version else self._version)

    def error_message(self, response: Response) -> str:
        return error_message(response)

    def describe(self) -> Request:
        return Request(self._metadata)

    def signature(self, response: Response) -> Signature:
        found = object_in(response)
        inputs, outputs = (_specs(found.get(side) or [], side) for side in ("inputs", "outputs"))
        if not inputs or not outputs:
            raise EndpointConfigError(
                "the server does not tell what the model takes and gives; say so with signature_from or inputs"
            )
        return made_of(self.target.signature, inputs, outputs)


def _as_text(values: pa.Array, spec: TensorSpec) -> pa.Array:
    """Bytes as the text that they are, as JSON has no bytes."""
    if pa.types.is_dictionary(values.type):
        # A word that is no text matters only to the rows that have it.
        return _as_text(values.dictionary_decode(), spec) if is_bytes(values.type.value_type) else values
    if not is_bytes(values.type):
        return values
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        raise RowError(
            f"input '{spec.name}': bytes that are not UTF-8 text, which this protocol's JSON cannot carry; "
            "with body: binary it can, if the server knows the binary tensor data extension"
        ) from None


def _cut(response: Response) -> tuple[Response, bytes]:
    """The JSON of an answer, and the bytes behind it."""
    said = response.headers.get(_LENGTH_HEADER.lower())
    if said is None:
        return response, b""
    if not (said.isascii() and said.isdigit() and len(said) < 20 and int(said) <= len(response.body)):
        raise ResponseError(f"the answer has {len(response.body)} bytes, its JSON alone should have {said[:40]}")
    return Response(response.body[: int(said)], response.headers), response.body[int(said) :]


def _binary_size(tensor: Mapping[str, Any]) -> int | None:
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if type(parameters) is dict else None
    if size is not None and (type(size) is not int or size < 0):
        raise ResponseError(f"output '{tensor['name']}' has a binary_data_size that is no size")
    return size


def _column(tensor: Mapping[str, Any], place: int, tail: bytes, spec: TensorSpec, rows: int) -> pa.Array:
    dtype, sizes = dtype_of(tensor.get("datatype")), tensor.get("shape")
    if type(sizes) is not list or not all(type(size) is int for size in sizes):
        raise ResponseError(f"output '{spec.name}' has no shape")
    size = _binary_size(tensor)
    if size is not None:
        values = from_binary(tail[place : place + size], dtype, spec.name)
    else:
        values = flat_leaves(tensor.get("data"), arrow_type(dtype), spec.name)
    return nest(values, sizes, spec, rows)


def _specs(tensors: Any, side: str) -> list[TensorSpec]:
    """The inputs or outputs of a model's metadata."""
    try:
        return [
            TensorSpec(
                str(tensor["name"]),
                dtype_of(tensor["datatype"]),
                tuple(None if int(size) < 0 else int(size) for size in tensor["shape"]),
            )
            for tensor in tensors
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ResponseError(f"the model's metadata: its {side} cannot be read ({error!r})"[:500]) from None
