"""Finds outputs that are the same in every row: mostly the model does not get what it should then.

Each step that writes looks at an output until it has seen two values of it; from then on this costs nothing. What the
steps have found is put together at the end: an output is constant if it is for each of them, with the same value.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import is_list, list_lengths
from pipelines import process_state

FEWEST_ROWS = 100
"""Rows below which nothing is said: so few may well be alike."""

_HEAD_ROWS = 64
"""Rows that are looked at before all others, as most outputs change within them."""
_MOST_VALUES = 1024
"""Values in a row; larger outputs, such as images, are not looked at."""
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Constant:
    """Describes the value of an output in every row.

    Attributes:
      text: the value as it is shown, which may be its beginning only.
      digest: of all of the value, by which values are compared.
      nan: it is NaN, or a list of nothing else.
    """

    text: str
    digest: str
    nan: bool = False


class ConstantOutputs:
    """Finds the outputs that have the same value in all rows that it is shown; from any thread.

    Args:
      names: of the outputs.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._lock = threading.Lock()
        self.begin(names)

    def begin(self, names: Sequence[str] = ()) -> None:
        """Forgets what it has seen, and looks at these outputs."""
        with self._lock:
            self._left: dict[str, Constant | None] = dict.fromkeys(names)

    def look(self, batch: pa.RecordBatch) -> None:
        """Looks at the outputs that have had one value so far."""
        if not self._left or not batch.num_rows:
            return
        for name in tuple(self._left):
            found = constant_of(batch[name])
            with self._lock:
                if name in self._left and (found is None or self._left[name] not in (None, found)):
                    del self._left[name]
                elif name in self._left:
                    self._left[name] = found

    def found(self) -> dict[str, Constant]:
        """Gives the outputs that have had one value, and which."""
        with self._lock:
            return {name: constant for name, constant in self._left.items() if constant is not None}


CONSTANTS = ConstantOutputs()
"""Of a stream's workers, which are threads of this process."""
process_state.reset_by(CONSTANTS.begin)


def in_all(parts: Sequence[Mapping[str, Constant]]) -> dict[str, Constant]:
    """Gives what is constant, with the same value, in each part of what was written.

    >>> one, two = Constant("1", "a"), Constant("2", "b")
    >>> in_all([{"x": one, "y": one}, {"x": one, "y": two}, {"x": one}])
    {'x': Constant(text='1', digest='a', nan=False)}
    """
    first, *others = parts or [{}]
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def notes_on(constants: Mapping[str, Constant], rows: int) -> tuple[str, ...]:
    """Says which outputs are constant, one line each.

    Args:
      constants: see `in_all`.
      rows: how many rows were written.
    """
    if rows < FEWEST_ROWS:
        return ()
    return tuple(
        f"output '{name}' is {constant.text} in all {rows:,} rows"
        + ("" if constant.nan else ": do the columns feed what the model was trained with?")
        for name, constant in constants.items()
    )


def constant_of(array: pa.Array) -> Constant | None:
    """Gives the one value of all rows of an output; None if there are two, or if a row is too large to compare.

    >>> constant_of(pa.array([1.5, 1.5])).text, constant_of(pa.array([1.5, 2.5]))
    ('1.5', None)
    """
    if len(array) > _HEAD_ROWS and not _is_constant(array.slice(0, _HEAD_ROWS)):
        return None
    return _described(array.slice(0, 1)) if _is_constant(array) else None


def _is_constant(array: pa.Array) -> bool:
    """Tells whether all rows have the same value. NaN is one value; null is one, too."""
    rows, values = len(array), 1
    while is_list(array.type):
        lengths = list_lengths(array)
        if array.null_count or (len(lengths) and lengths.min() != lengths.max()):
            return False
        values *= int(lengths[0]) if len(lengths) else 0
        array = array.flatten()
        if values > _MOST_VALUES:
            return False
    if pa.types.is_nested(array.type):
        return False
    if not values or rows == 1:
        return True
    if not pa.types.is_dictionary(array.type):
        array = _unsigned_zeros(array).dictionary_encode(null_encoding="encode")
    places = array.indices.to_numpy(zero_copy_only=False).reshape(rows, values)
    return bool((places == places[0]).all())


def _unsigned_zeros(array: pa.Array) -> pa.Array:
    """The same numbers, with 0.0 in place of -0.0, which is equal to it; of half precision, as single."""
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    return pc.add(array, pa.scalar(0, array.type)) if pa.types.is_floating(array.type) else array


def _described(row: pa.Array) -> Constant:
    value = _without_sign(row[0].as_py())
    digest = hashlib.blake2b(repr(value).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
    while is_list(row.type):
        row = row.flatten()
    row = _unsigned_zeros(row)
    if pa.types.is_floating(row.type) and len(row) and pc.all(pc.is_nan(row).fill_null(False)).as_py():
        return Constant("NaN", digest, nan=True)
    text = _text(value, single=row.type == pa.float32())
    return Constant(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "...", digest)


def _without_sign(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_sign(each) for each in value]
    return value + 0.0 if isinstance(value, float) else value


def _text(value: Any, *, single: bool) -> str:
    """A value as it is shown, or its beginning; a number of single precision has no more digits than it needs."""
    if isinstance(value, list):
        return f"[{', '.join(_text(each, single=single) for each in value[:_SHOWN_CHARACTERS])}]"
    if isinstance(value, (str, bytes)):
        return repr(value[:_SHOWN_CHARACTERS])
    if value is None:
        return "null"
    return str(np.float32(value)) if single else str(value)
