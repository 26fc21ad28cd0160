"""Speaks TensorFlow Serving's PredictionService over gRPC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

from inference.columns.bound import arrow_type
from inference.columns.coercion import is_text
from inference.endpoint.protocols.base import Answer, Protocol, Request, Response, Target
from inference.endpoint.protocols.definitions import choose, dtype_named, made_of
from inference.endpoint.protocols.flat import (
    MOST_EXPANDED_BYTES,
    check_sizes,
    flatten,
    from_little_endian,
    item_size,
    little_endian,
    nest,
    numbers,
    texts_as_bytes,
)
from inference.endpoint.protocols.json_read import require
from inference.endpoint.protocols.responses import one_line
from inference.endpoint.protocols.urls import grpc_address, segment, version_number
from inference.errors import ResponseError
from model.runtime.messages import get_model_metadata_pb2, predict_pb2, tensor_pb2, types_pb2
from model.specs import Signature, TensorSpec

_SERVICE = "/tensorflow.serving.PredictionService"
_ENUM = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "float16": "DT_HALF", "half": "DT_HALF"}
_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "float16": "half_val",
    "bfloat16": "half_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "string": "string_val",
}
_LONGEST_VARINT = 63
"""Bits that it shifts by at most."""


class TFServingGrpc(Protocol):
    """PredictRequests to `PredictionService/Predict`."""

    name = "tf_serving_grpc"
    transport = "grpc"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        grpc_address(target.url)
        segment(target.model, "model")
        if target.version and target.label:
            raise ValueError("version and label: they exclude each other; leave one out")
        self._version = version_number(target)

    def predict(self, arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec]) -> Request:
        message = predict_pb2.PredictRequest()
        self._name_model(message.model_spec)
        message.model_spec.signature_name = self.target.signature
        for array, spec in zip(arrays, inputs, strict=True):
            message.inputs[spec.name].CopyFrom(_tensor(array, spec))
        return Request(f"{_SERVICE}/Predict", message.SerializeToString())

    def _name_model(self, spec: Any) -> None:
        spec.name = self.target.model
        if self._version is not None:
            spec.version.value = self._version
        elif self.target.label:
            spec.version_label = self.target.label

    def read(self, response: Response, rows: int, outputs: Sequence[TensorSpec]) -> Answer:
        message = _parsed(predict_pb2.PredictResponse, response)
        require(message.outputs, outputs)
        columns = {spec.name: _column(message.outputs[spec.name], spec, rows) for spec in outputs}
        if message.model_spec.HasField("version"):
            return Answer(columns, str(message.model_spec.version.value))
        return Answer(columns, self.target.version)

    def error_message(self, response: Response) -> str:
        return one_line(response.body[:4096].decode("utf-8", "replace"))

    def describe(self) -> Request:
        message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._name_model(message.model_spec)
        return Request(f"{_SERVICE}/GetModelMetadata", message.SerializeToString())

    def signature(self, response: Response) -> Signature:
        message = _parsed(get_model_metadata_pb2.GetModelMetadataResponse, response)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        try:
            if "signature_def" not in message.metadata or not message.metadata["signature_def"].Unpack(signatures):
                raise ResponseError("the model's metadata has no 'signature_def'")
        except DecodeError:
            raise ResponseError("the model's metadata: its signatures cannot be read") from None
        name = self.target.signature
        found = choose(signatures.signature_def, name)
        inputs, outputs = ([_spec(key, info) for key, info in side.items()] for side in (found.inputs, found.outputs))
        return made_of(name, inputs, outputs, found.method_name)


def _parsed(kind: Any, response: Response) -> Any:
    try:
        return kind.FromString(response.body)
    except DecodeError:
        raise ResponseError(f"the answer is not a {kind.DESCRIPTOR.name}: {len(response.body)} bytes") from None


def _spec(name: str, info: Any) -> TensorSpec:
    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else tuple(None if dim.size < 0 else dim.size for dim in shape.dim)
    kind = "sparse" if info.HasField("coo_sparse") else "dense"
    return TensorSpec(name, dtype_named(types_pb2.DataType.Name(info.dtype)), sizes, kind)


def _tensor(array: pa.Array, spec: TensorSpec) -> Any:
    values, sizes = flatten(array, spec)
    tensor = tensor_pb2.TensorProto(dtype=_ENUM.get(spec.dtype, f"DT_{spec.dtype.upper()}"))
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    if is_text(values.type):
        tensor.string_val.extend(texts_as_bytes(values))
    else:
        tensor.tensor_content = little_endian(numbers(values), spec.dtype)
    return tensor


def _column(tensor: Any, spec: TensorSpec, rows: int) -> pa.Array:
    """The column of an output.

    Raises:
      ResponseError: the tensor is not what was announced, or says more values than it could have.
      RequestRefusedError: text that is not UTF-8.
    """
    name = f"output '{spec.name}'"
    try:
        dtype = dtype_named(types_pb2.DataType.Name(tensor.dtype))
    except ValueError:
        dtype = str(tensor.dtype)
    if arrow_type(dtype) is None:
        raise ResponseError(f"{name} is {dtype}, where {spec.dtype} was announced")
    if tensor.tensor_shape.unknown_rank:
        raise ResponseError(f"{name} has no shape")
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    check_sizes(sizes, None, spec, rows)
    count = math.prod(sizes)
    if tensor.tensor_content and dtype == "string":
        return nest(_packed_texts(tensor.tensor_content, count, name), sizes, spec, rows)
    if tensor.tensor_content:
        if len(tensor.tensor_content) != count * item_size(dtype):
            raise ResponseError(f"{name} has {len(tensor.tensor_content)} bytes for {count} values of {dtype}")
        return nest(pa.array(from_little_endian(tensor.tensor_content, dtype)), sizes, spec, rows)
    found = getattr(tensor, _FIELDS.get(dtype, "int_val"))
    if len(found) > count:
        raise ResponseError(f"{name} has {len(found)} values for a tensor of {count}")
    size = 16 + len(found[-1] if found else b"") if dtype == "string" else item_size(dtype)
    if (count - len(found)) * size > MOST_EXPANDED_BYTES:
        raise ResponseError(
            f"{name} has {len(found)} values for a tensor of {count}: those left out would take more than "
            f"{MOST_EXPANDED_BYTES >> 20} MiB"
        )
    return nest(_texts(found, count) if dtype == "string" else _numbers(found, count, dtype, name), sizes, spec, rows)


def _numbers(found: Any, count: int, dtype: str, name: str) -> pa.Array:
    """Values that were written one by one; the last one stands for all that are left out, none at all for zeros."""
    if dtype in ("float16", "bfloat16"):
        bits = np.array(found, np.int64)
        if ((bits < 0) | (bits > 0xFFFF)).any():
            raise ResponseError(f"{name} has values that are no {dtype}")
        values: npt.NDArray[Any] = from_little_endian(bits.astype("<u2").tobytes(), dtype)
    else:
        exact = np.array(found, np.int64 if "int" in dtype and dtype != "uint64" else dtype)
        values = exact.astype(dtype)
        if exact.dtype.kind == "i" and (values != exact).any():
            raise ResponseError(f"{name} has values that are no {dtype}")
    if len(values) < count:
        values = np.pad(values, (0, count - len(values)), "edge") if len(values) else np.zeros(count, values.dtype)
    return pa.array(values)


def _texts(found: Any, count: int) -> pa.Array:
    values = list(found)
    last = values[-1:] or [b""]
    return pa.array(values + last * (count - len(values)), pa.binary())


def _packed_texts(content: bytes, count: int, name: str) -> pa.Array:
    """Text as the server's option to serialize as tensor contents packs it: all lengths as varints, then all bytes."""
    place, lengths = 0, []
    try:
        for _ in range(count):
            length, shift = 0, 0
            while content[place] & 0x80:
                length |= (content[place] & 0x7F) << shift
                place, shift = place + 1, shift + 7
                if shift > _LONGEST_VARINT:
                    raise ResponseError(f"{name} has a text whose length is no number")
            lengths.append(length | content[place] << shift)
            place += 1
    except IndexError:
        raise ResponseError(f"{name} breaks off in the lengths of its text") from None
    if place + sum(lengths) != len(content):
        raise ResponseError(f"{name} has {len(content) - place} bytes for text of {sum(lengths)}")
    ends = np.cumsum([place, *lengths])
    return pa.array([content[low:high] for low, high in zip(ends, ends[1:], strict=False)], pa.binary())
