"""Shapes of inputs: in words, of default values, and of flat lists that become nested ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inference.columns.coercion import list_lengths
from model.specs import TensorSpec

Sizes = Sequence[int | None]
"""The sizes of one row's value, None for one that is not fixed."""


def row_sizes(spec: TensorSpec) -> tuple[int | None, ...]:
    """Returns the sizes of one row's value; none for an unknown rank."""
    return tuple(spec.shape[1:]) if spec.shape else ()


def in_words(spec: TensorSpec) -> str:
    """Returns the shape of an input as a person reads it.

    >>> in_words(TensorSpec("x", "float32", (None, None, 3)))
    '[batch, n, 3]'
    """
    if spec.shape is None:
        return "[batch, ?]"
    return f"[{', '.join('n' if size is None else str(size) for size in ('batch', *spec.shape[1:]))}]"


def is_single(spec: TensorSpec) -> bool:
    """Tells whether a row's value is one value: [batch], [batch, 1], [batch, 1, 1]."""
    return spec.shape is not None and spec.kind == "dense" and all(size == 1 for size in row_sizes(spec))


def can_be_flat(spec: TensorSpec) -> bool:
    """Tells whether a row's value can be made of a flat list: at most one size is open."""
    sizes = row_sizes(spec)
    if spec.kind != "dense":
        return len(sizes) == 1
    return sizes.count(None) <= 1 and 0 not in sizes


def fits(count: int, spec: TensorSpec) -> bool:
    """Tells whether a flat list of so many values fills the shape of an input that `can_be_flat`."""
    known = math.prod(size for size in row_sizes(spec) if size is not None)
    is_open = spec.shape is None or spec.kind != "dense" or None in row_sizes(spec)
    return count % known == 0 if is_open else count == known


def count_in_words(spec: TensorSpec) -> str:
    """Returns how many values a row has.

    >>> count_in_words(TensorSpec("x", "float32", (None, 64, 64, 3)))
    '64 x 64 x 3 = 12,288'
    """
    sizes = row_sizes(spec)
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return f"a multiple of {math.prod(known):,}"
    return f"{' x '.join(map(str, known))} = {math.prod(known):,}" if len(known) > 1 else f"{math.prod(known):,}"


def nest(values: pa.Array, spec: TensorSpec) -> tuple[pa.Array, dict[int, str]]:
    """Reshapes flat lists to the sizes of a dense input.

    Args:
      values: a flat list a row, or null.
      spec: an input that `can_be_flat`.

    Returns:
      Lists as deep as the input takes them, null where there was none or one of the wrong length, and a message for
      each of the latter.
    """
    sizes = row_sizes(spec)
    lengths = list_lengths(values)
    known = math.prod(size for size in sizes if size is not None)
    present = values.is_valid().to_numpy(zero_copy_only=False)
    good = present & (lengths % known == 0 if None in sizes else lengths == known)
    messages = {
        row: f"{lengths[row]:,} values, and the model takes {count_in_words(spec)}"
        for row in np.flatnonzero(present & ~good).tolist()
    }
    kept = np.flatnonzero(good)
    if len(kept) == len(values):
        return _nested(values.flatten(), lengths, sizes, known), messages
    nested = _nested(values.take(pa.array(kept)).flatten(), lengths[kept], sizes, known)
    place = np.full(len(values), -1, np.int64)
    place[kept] = np.arange(len(kept))
    return nested.take(pa.array(np.ma.masked_array(place, mask=~good), pa.int64())), messages


def _nested(flat: pa.Array, lengths: npt.NDArray[np.int64], sizes: Sizes, known: int) -> pa.Array:
    """Nests values; `lengths` are how many each row has, and `known` is the product of the sizes that are fixed."""
    lists = np.ones(len(lengths), np.int64)
    levels = []
    for size in sizes:
        in_each = lengths // known if size is None else np.full(len(lengths), size, np.int64)
        levels.append(np.repeat(in_each, lists))
        lists = lists * in_each
    for level in reversed(levels):
        offsets = np.zeros(len(level) + 1, np.int32)
        np.cumsum(level, out=offsets[1:])
        flat = pa.ListArray.from_arrays(pa.array(offsets), flat)
    return flat


def fitted(value: Any, spec: TensorSpec, depth: int) -> Any:
    """Makes a default as deep as an input takes it: a single value fills the shape, a flat list is reshaped.

    Args:
      value: the default, a value or (nested) lists of them.
      spec: the input.
      depth: in how many lists a row's value is nested.

    Raises:
      ValueError: it does not fit the shape; the message says why.

    >>> fitted(0.0, TensorSpec("x", "float32", (None, 2, 2)), 2)
    [[0.0, 0.0], [0.0, 0.0]]
    >>> fitted([1, 2, 3, 4], TensorSpec("x", "float32", (None, 2, 2)), 2)
    [[1, 2], [3, 4]]
    """
    if depth == 0:
        inner = flattened(value)
        if isinstance(value, list) and len(inner) != 1:
            raise ValueError(f"it has {len(inner):,} values, and the input takes one a row")
        return inner[0]
    sizes: Sizes = row_sizes(spec) if spec.kind == "dense" and spec.shape else (None,) * depth
    if not isinstance(value, list):
        for size in reversed(sizes):
            value = [value] * (1 if size is None else size)
        return value
    if depth > 1 and spec.kind == "dense" and not any(isinstance(item, list) for item in value) and can_be_flat(spec):
        if not fits(len(value), spec):
            raise ValueError(f"it has {len(value):,} values, and the input takes {count_in_words(spec)}")
        shape = [-1 if size is None else size for size in sizes]
        return np.array(value, dtype=object).reshape(shape).tolist()
    _check_sizes(value, sizes)
    if spec.kind == "dense":
        try:
            np.array(value, dtype=None if not value else object).reshape(-1)
            if len({len(flattened(item)) for item in value}) > 1:
                raise ValueError
        except ValueError:
            raise ValueError("its lists have different lengths") from None
    return value


def _check_sizes(value: Any, sizes: Sizes) -> None:
    if not sizes:
        if isinstance(value, list):
            raise ValueError("its lists are nested too deep")
        return
    if not isinstance(value, list):
        raise ValueError("its lists are not nested deep enough")
    if sizes[0] is not None and len(value) != sizes[0]:
        raise ValueError(f"it has {len(value):,} values where the input takes {sizes[0]:,}")
    for item in value:
        _check_sizes(item, sizes[1:])


def flattened(value: Any) -> list[Any]:
    """Returns the values inside all lists.

    >>> flattened([[1, 2], [3]])
    [1, 2, 3]
    """
    return [inner for item in value for inner in flattened(item)] if isinstance(value, list) else [value]
