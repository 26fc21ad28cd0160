"""Makes the arrays of a model's inputs of columns of a record batch, and finds the rows that do not fit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from inference.columns import shapes
from inference.columns.bound import Binding, InputBinding
from inference.columns.coercion import coerce_encoded, is_list, is_text, list_lengths
from inference.columns.gathering import gather
from inference.columns.lists import Messages, coerce_lists
from inference.errors import Failure


def prepare(batch: pa.RecordBatch, binding: Binding) -> tuple[list[pa.Array], dict[int, Failure]]:
    """Coerces the columns of `batch` to the model's inputs.

    Returns:
      One array for each input of the binding, all as long as the batch, and the rows that do not fit (whose
      values in the arrays are undefined) with the reason.
    """
    arrays = []
    failures: dict[int, Failure] = {}
    for bound in binding.inputs:
        array, messages = _prepare_input(batch, bound)
        arrays.append(array)
        for row, message in messages.items():
            failures.setdefault(row, Failure("coerce", "CoercionError", message))
    return arrays, failures


def _prepare_input(batch: pa.RecordBatch, bound: InputBinding) -> tuple[pa.Array, Messages]:
    rows = batch.num_rows
    if bound.vector:
        return gather(batch, bound)
    if bound.column is None:
        return _repeated(bound, rows), {}
    values = batch[bound.column]
    if pa.types.is_null(values.type):
        values = pa.nulls(rows, _nested(bound.type, bound.depth))
    messages: Messages = {}
    while bound.depth == 0 and is_list(values.type):
        values, several = _single(values)
        messages |= several
    if bound.depth == 0:
        values, wrong = coerce_encoded(values, bound.type, bound.encoding)
    else:
        values, wrong = coerce_lists(values, bound)
    messages.update(wrong)
    if values.null_count:
        values = _fill(values, bound, messages)
    return values, {row: f"column '{bound.column}': {text}" for row, text in messages.items()}


def _nested(type: pa.DataType, depth: int) -> pa.DataType:
    for _ in range(depth):
        type = pa.list_(type)
    return type


def _repeated(bound: InputBinding, rows: int) -> pa.Array:
    type = _nested(bound.type, bound.depth)
    if bound.default is None:
        return pa.nulls(rows, type)
    value = _default(bound)
    if bound.depth == 0 and is_text(bound.type):
        return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), value)
    return value.take(pa.array(np.zeros(rows, np.int32)))


def _default(bound: InputBinding) -> pa.Array:
    """The default, once, as the input takes it."""
    value = shapes.fitted(bound.default, bound.spec, bound.depth)
    return pa.array([value], _nested(bound.type, bound.depth))


def _fill(values: pa.Array, bound: InputBinding, messages: Messages) -> pa.Array:
    """Replaces missing values by the default; without one, their rows are refused."""
    missing = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
    missing = missing[[row not in messages for row in missing.tolist()]] if messages else missing
    if bound.default is not None:
        default = _default(bound)
        if pa.types.is_dictionary(values.type):
            default = pa.DictionaryArray.from_arrays(
                pa.array([0], values.type.index_type), default.cast(values.type.value_type)
            )
        elif default.type != values.type:
            default = default.cast(values.type)
        index = np.arange(len(values), dtype=np.int64)
        index[missing] = len(values)
        return pa.concat_arrays([values, default]).take(pa.array(index))
    if not bound.optional:
        for row in missing.tolist():
            messages[row] = (
                f'a value is missing; give one for all such rows in source.defaults {{"{bound.spec.name}": ...}}'
            )
    return values


def _single(values: pa.Array) -> tuple[pa.Array, Messages]:
    """Lists of one value each into those values; an empty list counts as missing."""
    lengths = list_lengths(values)
    messages = {row: f"{lengths[row]} values, and the model takes one" for row in np.flatnonzero(lengths > 1).tolist()}
    starts = np.cumsum(lengths) - lengths
    first = np.ma.masked_array(starts, mask=lengths == 0)
    return values.flatten().take(pa.array(first, pa.int64())), messages
