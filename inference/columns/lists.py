"""Makes the lists that an input takes of columns: lists, lists in text, and single values as lists of one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns import json_lists, shapes
from inference.columns.bound import InputBinding
from inference.columns.coercion import coerce_encoded, depth_of, is_bytes, is_list, is_text, list_lengths, shown

Messages = dict[int, str]
_Made = tuple[pa.Array, Messages]


def coerce_lists(values: pa.Array, bound: InputBinding) -> _Made:
    """Coerces a column to the lists of an input.

    Returns:
      Lists as deep as the input takes them, null where a value is missing, and a message for each row that does not
      fit.
    """
    if is_list(values.type):
        return _coerce_nested(values, bound)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if is_text(values.type) and not is_bytes(values.type):
        return _from_text(values, bound)
    return _singles(values, bound)


def _singles(values: pa.Array, bound: InputBinding) -> _Made:
    """Single values as lists of one value; null where there is none."""
    values, messages = coerce_encoded(values, bound.type, bound.encoding)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(values.is_valid().to_numpy(zero_copy_only=False), out=offsets[1:])
    mask = values.is_null() if values.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), values.drop_null(), mask=mask), messages


def _from_text(values: pa.Array, bound: InputBinding) -> _Made:
    """Lists in JSON, nested or flat; where the input takes lists of any length, other text is a list of one."""
    # One type for all batches, whatever their cells hold.
    values = values.cast(pa.string())
    listed = pc.fill_null(pc.match_substring_regex(values, r"^\s*\["), True)
    nested = pc.fill_null(pc.match_substring_regex(values, r"^\s*\[\s*\["), False)
    if bound.depth == 1:
        nested = pc.and_(nested, False)
    elif bound.spec.kind != "dense" or not shapes.can_be_flat(bound.spec):
        nested = pc.or_(nested, True)
    if not bound.takes_single:
        listed = pc.or_(listed, True)

    def parsed(depth: int) -> Callable[[pa.Array], _Made]:
        def parse(cells: pa.Array) -> _Made:
            lists, messages = json_lists.parse_lists(cells, bound.type, depth)
            coerced, wrong = _coerce_nested(lists, bound)
            return coerced, {**wrong, **messages}

        return parse

    flat = pc.and_not(listed, nested)
    kinds = ((flat, parsed(1)), (nested, parsed(bound.depth)), (pc.invert(listed), lambda v: _singles(v, bound)))
    return _by_kind(values, [(np.flatnonzero(mask.to_numpy(zero_copy_only=False)), make) for mask, make in kinds])


def _by_kind(values: pa.Array, kinds: list[tuple[npt.NDArray[np.intp], Callable[[pa.Array], _Made]]]) -> _Made:
    """Makes lists of each kind of values (rows, how) apart, and puts them in the order of the values again."""
    kinds = [(rows, make) for rows, make in kinds if len(rows)] or kinds[1:2]
    if len(kinds) == 1:
        return kinds[0][1](values)
    messages: Messages = {}
    pieces: list[pa.Array] = []
    for rows, make in kinds:
        made, wrong = make(values.take(pa.array(rows)))
        messages.update({int(rows[index]): message for index, message in wrong.items()})
        pieces.append(made if not pieces else made.cast(pieces[0].type))
    place = np.empty(len(values), np.int64)
    place[np.concatenate([rows for rows, _ in kinds])] = np.arange(len(values))
    return pa.concat_arrays(pieces).take(pa.array(place)), messages


def _coerce_nested(values: pa.Array, bound: InputBinding) -> tuple[pa.Array, Messages]:
    depth = depth_of(values.type)
    if depth < bound.depth:
        # One flat list a row, of any length so far.
        values, messages = _coerce_level(values, bound, [None])
        values, wrong = shapes.nest(values, bound.spec)
        return values, {**wrong, **messages}
    sizes: list[int | None] = list(bound.spec.shape[1:]) if bound.spec.shape else [None] * bound.depth
    return _coerce_level(values, bound, sizes)


def _coerce_level(values: pa.Array, bound: InputBinding, sizes: list[int | None]) -> tuple[pa.Array, Messages]:
    lengths = list_lengths(values)
    flat = values.flatten()
    inner, inner_messages = (
        _coerce_level(flat, bound, sizes[1:])
        if len(sizes) > 1 and is_list(flat.type)
        else coerce_encoded(flat, bound.type, bound.encoding)
    )
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    messages = _owners(offsets, inner_messages)
    if inner.null_count:
        holes = np.flatnonzero(inner.is_null().to_numpy(zero_copy_only=False)).tolist()
        for row in _owners(offsets, dict.fromkeys(holes, "")):
            messages.setdefault(row, f"a value is missing inside {shown(values[row])}")
    size = sizes[0] if sizes else None
    if size is not None and bound.spec.kind == "dense":
        present = values.is_valid().to_numpy(zero_copy_only=False)
        for row in np.flatnonzero((lengths != size) & present).tolist():
            messages.setdefault(row, f"{lengths[row]} values, and the model takes {size}")
    mask = values.is_null() if values.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), inner, mask=mask), messages


def _owners(offsets: npt.NDArray[np.int64], messages: Messages) -> Messages:
    """Messages about flat values as messages about the lists that hold them."""
    owned: Messages = {}
    for index, text in messages.items():
        owned.setdefault(int(np.searchsorted(offsets, index, side="right")) - 1, text)
    return owned
