"""Lays columns out as tensors lie in requests, and back: flat values in row-major order, and dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import depth_of, is_list, is_text, leaf_of, list_lengths
from inference.errors import RequestRefusedError, ResponseError, RowError
from inference.tensors import output_type
from model.specs import TensorSpec

MOST_EXPANDED_BYTES = 256 << 20
"""Largest tensor that an answer may stand for without holding its values: left out, or of no size."""

_MOST_DIMENSIONS = 254
"""As many as a tensor of TensorFlow may have."""
_STORED: dict[str, Any] = {"bfloat16": ml_dtypes.bfloat16, "bool": np.uint8}


def flatten(array: pa.Array, spec: TensorSpec) -> tuple[pa.Array, list[int]]:
    """Returns the values inside all lists of an input, and the sizes of its tensor, the rows first.

    Where the tensor has more dimensions than the column is nested, they are of size 1, and innermost.

    Raises:
      RowError: lists of different lengths.
    """
    sizes = [len(array)]
    while is_list(array.type):
        lengths = list_lengths(array)
        size = int(lengths[0]) if len(lengths) else 0
        if len(lengths) and (lengths != size).any():
            raise RowError(f"input '{spec.name}': lists of {size} and of other lengths in one tensor")
        sizes.append(size)
        array = array.flatten()
    if spec.shape is not None:
        sizes += [1] * (len(spec.shape) - len(sizes))
    return array, sizes


def numbers(array: pa.Array) -> npt.NDArray[Any]:
    """Returns numbers or bools without nulls as a numpy array."""
    return np.ascontiguousarray(array.to_numpy(zero_copy_only=False))


def little_endian(array: npt.NDArray[Any], dtype: str) -> bytes:
    """Returns numbers of a TensorFlow dtype, in the bytes that tensors travel as."""
    stored = np.dtype(_STORED[dtype]) if dtype in _STORED else array.dtype
    raw = array.astype(stored)
    return raw.tobytes() if stored == ml_dtypes.bfloat16 else raw.astype(stored.newbyteorder("<")).tobytes()


def from_little_endian(data: bytes, dtype: str) -> npt.NDArray[Any]:
    """Returns the inverse of `little_endian`; bfloat16 as float32."""
    stored = np.dtype(_STORED[dtype]) if dtype in _STORED else np.dtype(dtype).newbyteorder("<")
    array = np.frombuffer(data, stored)
    if dtype == "bool":
        return array.astype(np.bool_)
    return array.astype(np.float32 if dtype == "bfloat16" else stored.newbyteorder("="))


def item_size(dtype: str) -> int:
    """Returns the bytes of a number or bool in a tensor."""
    return int(np.dtype(_STORED.get(dtype, dtype)).itemsize)


def texts_as_bytes(array: pa.Array) -> list[bytes]:
    """Returns text or bytes, dictionary-encoded or not, as Python's bytes; a word of a dictionary is made once."""
    if pa.types.is_dictionary(array.type):
        if len(array.dictionary) > len(array):
            return texts_as_bytes(array.dictionary_decode())
        words = np.empty(len(array.dictionary), object)
        words[:] = texts_as_bytes(array.dictionary)
        taken: list[bytes] = words[array.indices.to_numpy(zero_copy_only=False)].tolist()
        return taken
    listed: list[bytes] = array.cast(pa.large_binary()).to_pylist()
    return listed


def check_rows(found: int, rows: int, what: str = "") -> None:
    """Raises ResponseError if there is not one prediction for each row."""
    if found != rows:
        raise ResponseError(f"{what}{found} predictions for {rows} rows")


def nest(values: pa.Array, sizes: Sequence[int], spec: TensorSpec, rows: int) -> pa.Array:
    """Returns the column of an output, from its values and the sizes of its tensor.

    Raises:
      ResponseError: the tensor is not of `rows` rows, or not of the output's shape or type.
      RequestRefusedError: text that is not UTF-8.
    """
    name = f"output '{spec.name}'"
    check_sizes(sizes, len(values), spec, rows)
    wanted = output_type(spec)
    depth = depth_of(wanted)
    if len(sizes) - 1 != depth and not (depth == 0 and math.prod(sizes[1:]) == 1):
        shape = ", ".join(map(str, sizes))
        raise ResponseError(f"{name} has shape [{shape}], where {len(spec.shape or ' ')} dimensions were announced")
    inner = list(sizes[1 : depth + 1])
    announced = (spec.shape or ())[1 : depth + 1]
    if any(size not in (None, found) for size, found in zip(announced, inner, strict=True)):
        raise ResponseError(f"{name} has {inner} values a row, where {list(announced)} were announced")
    array = fit(values, leaf_of(wanted), spec.name)
    counts = np.cumprod([rows, *inner])
    for size, count in zip(reversed(inner), reversed(counts[:-1]), strict=True):
        offsets = np.arange(count + 1, dtype=np.int32) * np.int32(size)
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array


def check_sizes(sizes: Sequence[int], values: int | None, spec: TensorSpec, rows: int) -> None:
    """Raises ResponseError if a tensor is not of `rows` rows, or (where it is known) has not as many values."""
    name = f"output '{spec.name}'"
    if not sizes:
        raise ResponseError(f"{name} is a single value for {rows} rows")
    if len(sizes) > _MOST_DIMENSIONS:
        raise ResponseError(f"{name} has {len(sizes)} dimensions")
    check_rows(sizes[0], rows, f"{name}: ")
    if min(sizes) < 0 or (values is not None and math.prod(sizes) != values):
        shape = ", ".join(map(str, sizes))
        raise ResponseError(f"{name} has shape [{shape}] but {values} values")
    # Lists without a value in them take room too.
    if 0 in sizes and math.prod(size or 1 for size in sizes) * 4 > MOST_EXPANDED_BYTES:
        raise ResponseError(f"{name} has lists of nothing, more than fit into {MOST_EXPANDED_BYTES >> 20} MiB")


def fit(array: pa.Array, wanted: pa.DataType, name: str) -> pa.Array:
    """Returns flat values as the type that was announced, if nothing is lost.

    Raises:
      ResponseError: something would be lost.
      RequestRefusedError: text that is not UTF-8; sending the row again would not help.
    """
    if array.type == wanted:
        return array
    if is_text(array.type) and is_text(wanted):
        try:
            return array.cast(wanted)
        except pa.ArrowInvalid:
            raise RequestRefusedError(f"output '{name}': the model's bytes are not UTF-8 text") from None
    source = array.type
    loses = ResponseError(f"output '{name}' is {source}, where {wanted} was announced")
    same_kind = is_text(source) == is_text(wanted) and pa.types.is_boolean(source) == pa.types.is_boolean(wanted)
    if not same_kind:
        raise loses
    try:
        cast = array.cast(wanted)
        back = cast.cast(source)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise loses from None
    if pa.types.is_floating(source):
        array, back = (values.fill_null(0).to_numpy(zero_copy_only=False) for values in (array, back))
        if not np.array_equal(array, back, equal_nan=True):
            raise loses
    elif not pc.all(pc.equal(array, back), min_count=0).as_py():
        raise loses
    return cast
