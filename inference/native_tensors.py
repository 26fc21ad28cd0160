"""Converts Arrow arrays to what the native runtime takes, and back, without a copy where that can be.

| array | input |
|---|---|
| numbers | [batch], the column's own memory |
| bool, bfloat16 | [batch], a copy: Arrow packs the one, and has no other |
| strings, dictionaries of strings | [batch], views of one copy of the different ones |
| lists of one length | [batch, n], [batch, n, m] |
| lists of any length | the components of a ragged or sparse input |

The rules are those of `tensors`, which does the same for TensorFlow's Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inference import flattening
from inference.columns.bound import InputBinding
from inference.columns.coercion import is_list, is_text, numpy_dtype
from inference.errors import OutputError
from inference.tensors import as_announced, check_rows, nested, output_type
from model.runtime.arrays import Dense, Numbers, Output, Ragged, Sparse, Strings, numpy_type
from model.specs import TensorSpec


def to_inputs(array: pa.Array, bound: InputBinding) -> dict[str, Dense]:
    """Makes the arrays of one input, by the keyword that the model takes them under.

    Args:
      array: values without nulls, of `bound.type` inside `bound.depth` lists, [rows].
      bound: the input.
    """
    spec = bound.spec
    if spec.kind == "ragged":
        flat, shape, splits = flattening.ragged(array, spec)
        values, *names = spec.components
        return {**dict(zip(names, splits, strict=True)), values: _dense(flat, spec.dtype, shape)}
    if spec.kind == "sparse":
        flat, indices, dense_shape = flattening.sparse(array, spec)
        parts = (indices, _dense(flat, spec.dtype, (len(flat),)), dense_shape)
        return dict(zip(spec.components, parts, strict=True))
    flat, shape = flattening.dense(array, spec)
    return {spec.name: _dense(flat, spec.dtype, shape)}


def _dense(array: pa.Array, dtype: str, shape: tuple[int, ...]) -> Dense:
    if is_text(array.type):
        return Strings(array, shape)
    return _numbers(array, dtype).reshape(shape)


def _numbers(array: pa.Array, dtype: str) -> Numbers:
    """The values of an array of numbers or bools without nulls."""
    buffer = array.buffers()[1]
    count = len(array)
    if not count:
        return np.empty(0, numpy_type(dtype))
    if pa.types.is_boolean(array.type):
        bits = np.frombuffer(buffer, np.uint8)
        first = array.offset // 8
        last = (array.offset + count + 7) // 8
        unpacked = np.unpackbits(bits[first:last], bitorder="little")
        return unpacked[array.offset - first * 8 :][:count].view(np.bool_)
    stored = numpy_dtype(array.type)
    values = np.frombuffer(buffer, stored, count, array.offset * stored.itemsize)
    return values.astype(numpy_type(dtype)) if dtype == "bfloat16" else values


def first_row(value: Dense) -> Dense:
    """Returns the only row of a value, without the dimension for rows, for models that have none."""
    return Strings(value.values, value.shape[1:]) if isinstance(value, Strings) else value[0]


def as_row(value: Output) -> Output:
    """Returns a value with a dimension for rows of size one. Raises OutputError if it is not dense."""
    if isinstance(value, Strings):
        return Strings(value.values, (1, *value.shape))
    if isinstance(value, np.ndarray):
        return value[None]
    raise OutputError("a model that takes one row gives a ragged or sparse tensor: it is no value of a row")


def from_output(value: Output, spec: TensorSpec, rows: int) -> pa.Array:
    """Returns the column of an output, [rows].

    Raises:
      OutputError: the output does not have one value (or list) for each row.
    """
    if isinstance(value, Sparse):
        value = _by_rows(value, spec)
    if isinstance(value, Ragged):
        array = _column(value.values, depth=2)
        for splits in reversed(value.splits):
            array = pa.ListArray.from_arrays(pa.array(splits.astype(np.int32)), array)
    else:
        check_rows(tuple(value.shape), spec, rows)
        array = _column(value, depth=2 if is_list(output_type(spec)) else 1)
    return as_announced(array, spec, rows)


def _column(value: Dense, depth: int) -> pa.Array:
    flat = value.values if isinstance(value, Strings) else _arrow(value.reshape(-1))
    return nested(flat, tuple(value.shape), depth)


def _arrow(values: Numbers) -> pa.Array:
    """Numbers as an array on their own memory."""
    if values.dtype.kind == "V":
        values = values.astype(np.float32)
    if values.dtype == np.bool_:
        packed = np.packbits(values, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(packed)])
    try:
        kind: Any = pa.from_numpy_dtype(values.dtype)
    except pa.ArrowNotImplementedError as error:
        raise OutputError(f"values of type {values.dtype} in an output: no column can hold them") from error
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def _by_rows(value: Sparse, spec: TensorSpec) -> Ragged:
    """A sparse matrix whose rows are filled from the left, as the lists that they are."""
    if len(value.dense_shape) != 2:
        raise OutputError(
            f"output '{spec.name}' is sparse in {len(value.dense_shape)} dimensions: only two can be lists"
        )
    rows = int(value.dense_shape[0])
    of_row: npt.NDArray[np.int64] = value.indices[:, 0]
    counts = np.bincount(of_row, minlength=rows)
    splits = np.concatenate([[0], np.cumsum(counts)])
    expected = np.arange(len(of_row)) - splits[:-1][of_row]
    if (np.diff(of_row) < 0).any() or (expected != value.indices[:, 1]).any():
        raise OutputError(f"output '{spec.name}' is sparse with holes in its rows: they are no lists")
    return Ragged(value.values, (splits,))
