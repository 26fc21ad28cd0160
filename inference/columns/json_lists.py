"""Parses lists that are written as JSON in cells of text, such as `[1.0, 2.0]`: all cells of a column at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from inference.columns.coercion import Failures, by_value, coerce, describe, is_list, is_text, shown
from inference.columns.nulls import kept_where

_LIST = r'^\s*\[(?:"(?:[^"\\\x00-\x1f]|\\.)*"|[^"{}\x00-\x08])*\]\s*$'
"""A cell that cannot reach beyond itself once it stands in an object of its own: braces are only in its strings."""

_EXACT = 1 << 53
"""Integers from here on are not all floats."""


def parse_lists(values: pa.Array, type: pa.DataType, depth: int) -> tuple[pa.Array, Failures]:
    """Parses text as lists in JSON.

    Args:
      values: text, or null.
      type: of the values inside all lists.
      depth: in how many lists they are nested.

    Returns:
      Lists (null where there was none or it could not be parsed), and a message for each that could not.

    >>> parse_lists(pa.array(["[1, 2.5]", "[]", "1, 2"]), pa.float32(), 1)[1]
    {2: "'1, 2' is not a list in JSON"}
    """
    wanted = type
    for _ in range(depth):
        wanted = pa.list_(wanted)
    whole = pc.fill_null(pc.match_substring_regex(values, _LIST), True).to_numpy(zero_copy_only=False)
    failures = {row: f"{shown(values[row])} is not a list in JSON" for row in np.flatnonzero(~whole).tolist()}
    kept = kept_where(values, pa.array(whole)) if failures else values
    refusal = f"is not a list in JSON, {depth} deep, of" if depth > 1 else "is not a list in JSON of"
    parsed, wrong = by_value(kept, wanted, _parser(type, depth), refusal)
    ending = f" a {wanted}"
    for row, message in wrong.items():
        failures[row] = f"{message.removesuffix(ending)} {type}"
    return parsed, failures


def _parser(type: pa.DataType, depth: int) -> Callable[[pa.Array], pa.Array]:
    """Makes a function that parses cells, all or none of them."""
    kinds = [_plain(type), *(kind for kind in (pa.int64(), pa.float64(), pa.string()) if describe(kind, type))]

    def parse(cells: pa.Array) -> pa.Array:
        error: pa.ArrowInvalid | None = None
        for kind in dict.fromkeys(kinds):
            try:
                return _converted(_read(cells, kind, depth), type)
            except pa.ArrowInvalid as invalid:
                error = invalid
        raise error or pa.ArrowInvalid("no list")

    return parse


def _plain(type: pa.DataType) -> pa.DataType:
    """Returns the type that the parser reads values as, before they are coerced to `type`."""
    if is_text(type):
        return pa.string()
    if pa.types.is_floating(type):
        return pa.float64()
    return type if pa.types.is_uint64(type) or pa.types.is_boolean(type) else pa.int64()


def _read(cells: pa.Array, kind: pa.DataType, depth: int) -> pa.Array:
    for _ in range(depth):
        kind = pa.list_(kind)
    if not len(cells):
        return pa.array([], kind)
    # A newline ends a document; between the values of a list it is white space as any other.
    cells = pc.replace_substring(pc.fill_null(cells, "null"), "\n", " ")
    documents = pc.binary_join_element_wise('{"v":', cells, "}\n", "")
    text = documents.buffers()[-1].slice(0, int(pc.sum(pc.binary_length(documents)).as_py()))
    table = pajson.read_json(
        pa.BufferReader(text),
        read_options=pajson.ReadOptions(use_threads=False, block_size=text.size + 1024),
        parse_options=pajson.ParseOptions(
            explicit_schema=pa.schema([("v", kind)]), unexpected_field_behavior="error", newlines_in_values=False
        ),
    )
    parsed = table.column(0).combine_chunks()
    parsed = parsed.chunk(0) if isinstance(parsed, pa.ChunkedArray) else parsed
    if len(parsed) != len(cells):
        raise pa.ArrowInvalid("more or fewer lists than cells")
    return parsed


def _converted(lists: pa.Array, type: pa.DataType) -> pa.Array:
    """Coerces the values inside lists; raises ArrowInvalid if one does not fit."""
    if not is_list(lists.type):
        as_float = pa.types.is_floating(lists.type) and pa.types.is_integer(type)
        if as_float and pc.any(pc.greater_equal(pc.abs(lists), float(_EXACT))).as_py():
            raise pa.ArrowInvalid("an integer that the parser cannot tell from its neighbours")
        converted, failures = coerce(lists, type)
        if failures:
            raise pa.ArrowInvalid(next(iter(failures.values())))
        return converted.cast(type) if is_text(type) else converted
    inner = _converted(lists.flatten(), type)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(lists) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    mask = lists.is_null() if lists.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), inner, mask=mask)
