"""Writes serialized protobuf messages for all rows of a batch at once, as Arrow binary arrays.

Encoding: https://protobuf.dev/programming-guides/encoding/. A null stands for a field that is absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.nulls import kept_where

_BINARY = pa.large_binary()
_NOTHING = pa.scalar(b"", _BINARY)

Numbers = npt.NDArray[np.uint64]


def varint(value: int) -> bytes:
    """Encodes a number in base 128."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def read_varint(body: bytes, at: int) -> tuple[int, int]:
    """Decodes the number of `body` at `at`; returns it, and the offset after it. Raises IndexError if it has no end."""
    value = shift = 0
    while True:
        byte = body[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError


def field(number: int, content: bytes) -> bytes:
    """Returns a length-delimited field."""
    return tag(number) + varint(len(content)) + content


def tag(number: int, wire_type: int = 2) -> bytes:
    """Returns a field's tag; wire type 2 is length-delimited, 0 a varint."""
    return varint(number << 3 | wire_type)


def varints(values: Numbers) -> pa.LargeBinaryArray:
    """Encodes numbers in base 128, one a row."""
    if not len(values) or values.max() <= 0x7F:
        return _binary(np.arange(len(values) + 1, dtype=np.int64), values.astype(np.uint8))
    widths = _widths(values)
    groups = int(widths.max())
    shifts = np.arange(groups, dtype=np.uint64) * np.uint64(7)
    digits = ((values[:, None] >> shifts) & np.uint64(0x7F)).astype(np.uint8)
    places = np.arange(groups)
    digits[places < widths[:, None] - 1] |= 0x80
    ends = np.concatenate([[0], np.cumsum(widths)])
    return _binary(ends, digits[places < widths[:, None]])


def concat(parts: Sequence[Any], absent: bytes | None = None) -> pa.LargeBinaryArray:
    """Joins the parts of each row, which are arrays or, for all rows, bytes.

    A null part makes a null row, or stands for `absent`.
    """
    scalars = [pa.scalar(part, _BINARY) if isinstance(part, bytes) else part for part in parts]
    if absent is None:
        return pc.binary_join_element_wise(*scalars, _NOTHING)
    return pc.binary_join_element_wise(*scalars, _NOTHING, null_handling="replace", null_replacement=absent)


def nested(tags: Sequence[bytes], content: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """Encodes length-delimited fields within each other, outermost first: `tag, length, tag, length, ..., content`.

    Args:
      tags: what comes before each length: a field's tag, after all that precedes it in its message.
      content: the innermost message of each row.
    """
    lengths = pc.binary_length(content)
    # A null's length does not matter; any but the others' would make the lengths differ.
    lengths = pc.fill_null(lengths, pc.max(lengths).as_py() or 0).to_numpy().astype(np.uint64)
    parts: list[Any] = [content]
    for before in reversed(tags):
        if len(lengths) and lengths.min() == lengths.max():
            size = varint(int(lengths[0]))
            parts[:0] = [before + size]
            lengths = lengths + np.uint64(len(before) + len(size))
        else:
            parts[:0] = [before, varints(lengths)]
            lengths = lengths + np.uint64(len(before)) + _widths(lengths).astype(np.uint64)
    return concat(_merged(parts))


def by_row(items: pa.LargeBinaryArray, lists: pa.Array) -> pa.LargeBinaryArray:
    """Joins the items of each list, where `items` are the encoded values of `lists` (null where it is)."""
    offsets = np.frombuffer(items.buffers()[1], np.int64)[items.offset :]
    bounds = lists.offsets.to_numpy()
    ends = offsets[bounds - bounds[0]]
    return _with_nulls(ends, items.buffers()[2], lists)


def raw(array: pa.Array) -> pa.LargeBinaryArray:
    """Returns the little-endian bytes of fixed-width values, one a row; or of lists of such values."""
    lists = array if _is_list(array.type) else None
    values = array if lists is None else lists.values
    width = values.type.bit_width // 8
    if lists is None:
        ends = (np.arange(len(array) + 1, dtype=np.int64) + array.offset) * width
    else:
        ends = (lists.offsets.to_numpy().astype(np.int64) + values.offset) * width
    return _with_nulls(ends, values.buffers()[1], array)


def _is_list(type: pa.DataType) -> bool:
    found: bool = pa.types.is_list(type) or pa.types.is_large_list(type)
    return found


def _merged(parts: list[Any]) -> list[Any]:
    """Constant parts next to each other as one."""
    merged: list[Any] = []
    for part in parts:
        if merged and isinstance(part, bytes) and isinstance(merged[-1], bytes):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _widths(values: Numbers) -> npt.NDArray[np.int64]:
    widths = np.ones(len(values), np.int64)
    for shift in range(7, 64, 7):
        larger = values >= np.uint64(1 << shift)
        if not larger.any():
            break
        widths += larger
    return widths


def _binary(ends: npt.NDArray[np.int64], data: npt.NDArray[np.uint8]) -> pa.LargeBinaryArray:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(ends)), pa.py_buffer(np.ascontiguousarray(data))]
    return pa.Array.from_buffers(_BINARY, len(ends) - 1, buffers)


def _with_nulls(ends: npt.NDArray[np.int64], data: pa.Buffer, like: pa.Array) -> pa.LargeBinaryArray:
    data = data if data is not None else pa.py_buffer(b"")
    out = pa.Array.from_buffers(_BINARY, len(ends) - 1, [None, pa.py_buffer(np.ascontiguousarray(ends)), data])
    return kept_where(out, like.is_valid()) if like.null_count else out
