"""Encodes tensors of the Open Inference Protocol: its names of types, and its binary extension.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension
"""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import is_text
from inference.endpoint.protocols.flat import from_little_endian, item_size, little_endian, numbers
from inference.errors import ResponseError

_DATATYPES = {
    "bool": "BOOL",
    "string": "BYTES",
    "bfloat16": "BF16",
    "float16": "FP16",
    "half": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_DTYPES = {datatype: dtype for dtype, datatype in _DATATYPES.items() if dtype != "half"}
_LENGTH = struct.Struct("<I")


def datatype_of(dtype: str) -> str:
    """Returns the protocol's name of a TensorFlow dtype: "float32" is FP32."""
    return _DATATYPES.get(dtype, dtype.upper())


def dtype_of(datatype: object) -> str:
    """TensorFlow's name of a datatype. Raises ResponseError if the protocol has no such type."""
    dtype = _DTYPES.get(datatype) if isinstance(datatype, str) else None
    if dtype is None:
        raise ResponseError(f"the answer has a tensor of datatype {str(datatype)[:40]!r}, which is none")
    return dtype


def to_binary(values: pa.Array, dtype: str) -> bytes:
    """Returns flat values: numbers little-endian, bools a byte each, text with its length before it."""
    if is_text(values.type):
        return _texts_to_binary(values)
    return little_endian(numbers(values), dtype)


def _texts_to_binary(values: pa.Array) -> bytes:
    if not len(values):
        return b""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    values = values.cast(pa.binary())
    lengths = pc.binary_length(values).to_numpy(zero_copy_only=False).astype("<u4")
    offsets = np.arange(len(values) + 1, dtype=np.int32) * np.int32(_LENGTH.size)
    before = pa.Array.from_buffers(
        pa.binary(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(lengths.tobytes())]
    )
    joined = pc.binary_join_element_wise(before, values, b"")
    whole: bytes = joined.buffers()[2].to_pybytes()
    return whole


def from_binary(data: bytes, dtype: str, name: str) -> pa.Array:
    """Returns the flat values of an output. Raises ResponseError if the bytes are not of the type."""
    if dtype == "string":
        return _texts_from_binary(data, name)
    if len(data) % item_size(dtype):
        raise ResponseError(f"output '{name}' has {len(data)} bytes, which is no number of {dtype}")
    return pa.array(from_little_endian(data, dtype))


def _texts_from_binary(data: bytes, name: str) -> pa.Array:
    place, values = 0, []
    while place < len(data):
        start = place + _LENGTH.size
        if start > len(data):
            raise ResponseError(f"output '{name}' breaks off in the length of a text")
        place = start + _LENGTH.unpack_from(data, place)[0]
        if place > len(data):
            raise ResponseError(f"output '{name}' breaks off in a text")
        values.append(data[start:place])
    return pa.array(values, pa.binary())
