"""Gathers vectors of several columns of a batch: each is coerced as a whole, then all are laid side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inference.columns import shapes
from inference.columns.bound import Element, InputBinding
from inference.columns.coercion import coerce_encoded, is_bytes, is_text

_ROWS_AT_ONCE = 2048
"""Rows that are laid side by side at a time: they stay in the processor's cache while all columns are written."""


def gather(batch: pa.RecordBatch, bound: InputBinding) -> tuple[pa.Array, dict[int, str]]:
    """Makes one list a row of the columns of a vector.

    Returns:
      The lists, as deep as the input takes them (of rows that do not fit, with any value), and a message for each row
      that does not fit, which names the first column that is at fault.
    """
    rows = batch.num_rows
    messages: dict[int, str] = {}
    columns = []
    for element in bound.vector:
        values, wrong = _coerced(batch, element, bound)
        columns.append(values)
        for row, text in wrong.items():
            messages.setdefault(row, f"column '{element.column}': {text}")
    width = len(columns)
    flat = _interleaved_text(columns, rows) if is_text(bound.type) else _interleaved(columns, rows, bound.type)
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(width))
    lists = pa.ListArray.from_arrays(offsets, flat)
    if bound.depth > 1:
        lists, _ = shapes.nest(lists, bound.spec)
    return lists, messages


def _coerced(batch: pa.RecordBatch, element: Element, bound: InputBinding) -> tuple[pa.Array, dict[int, str]]:
    """One column without nulls, and what is wrong with the rows whose value is not that of the column."""
    if element.type is None:
        return pa.repeat(pa.scalar(element.default, bound.type), batch.num_rows), {}
    values = batch[element.column]
    if pa.types.is_null(values.type):
        values = pa.nulls(batch.num_rows, bound.type)
    values, messages = coerce_encoded(values, bound.type, element.encoding)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not values.null_count:
        return values, messages
    if element.default is None:
        for row in np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)).tolist():
            messages.setdefault(
                row,
                "a value is missing; give one for all such rows in "
                f'source.defaults {{"{element.column}": ...}} or {{"{bound.spec.name}": ...}}',
            )
    filler = _nothing(values.type) if element.default is None else pa.scalar(element.default, bound.type)
    return values.fill_null(filler.cast(values.type)), messages


def _nothing(type: pa.DataType) -> pa.Scalar:
    """What stands where a row is refused."""
    if is_text(type):
        return pa.scalar("", pa.string())
    return pa.scalar(False) if pa.types.is_boolean(type) else pa.scalar(0, pa.int8())


def _interleaved(columns: Sequence[pa.Array], rows: int, type: pa.DataType) -> pa.Array:
    """The numbers of columns, row after row."""
    arrays = [column.to_numpy(zero_copy_only=False) for column in columns]
    together: npt.NDArray[np.generic] = np.empty((rows, len(arrays)), arrays[0].dtype)
    for low in range(0, rows, _ROWS_AT_ONCE):
        part = together[low : low + _ROWS_AT_ONCE]
        for place, array in enumerate(arrays):
            part[:, place] = array[low : low + _ROWS_AT_ONCE]
    return pa.array(together.reshape(-1), type)


def _interleaved_text(columns: Sequence[pa.Array], rows: int) -> pa.Array:
    """The texts of columns, row after row."""
    types = {column.type for column in columns}
    if len(types) > 1:
        common = pa.large_binary() if any(is_bytes(type) for type in types) else pa.large_string()
        columns = [column.cast(common) for column in columns]
    index = np.arange(rows * len(columns), dtype=np.int64).reshape(len(columns), rows).T
    return pa.concat_arrays(columns).take(pa.array(np.ascontiguousarray(index).reshape(-1)))
