"""Converts values of one type to another, if nothing is lost.

| from | to | |
|---|---|---|
| the same type, or one that holds all its values | | silent |
| integer | a smaller integer, or a float | value by value: it must be representable |
| float64 | float32 | rounds to the nearest float32, as text would; overflow is refused |
| decimal | float | rounds to the nearest, as its text would; overflow is refused |
| float | integer | value by value: it must be whole |
| text | number, bool | value by value: it must be one; `25.0` and `1e3` are integers (see `numerals`) |
| integer, bool | text | `7`, `True`; a bool reads as Python and CSV exports write it |
| an object `{"b64": "..."}` | text | the bytes that it holds |
| float, time, date, nested | text | refused: there is more than one way to write them |

This is for what a model takes. Columns that are written as they were read take `inference.columns.exact` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns import base64_values, numerals

Failures = dict[int, str]
_Cast = Callable[[pa.Array], pa.Array]


_BYTES = frozenset(each.id for each in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1)))
_TEXTS = _BYTES | {each.id for each in (pa.string(), pa.large_string(), pa.string_view())}
_LISTS = frozenset(each.id for each in (pa.list_(pa.null()), pa.large_list(pa.null()), pa.list_(pa.null(), 1)))
_DICTIONARY = pa.dictionary(pa.int32(), pa.string()).id


def is_text(type: pa.DataType) -> bool:
    """Tells whether values of the type are strings or bytes, dictionary-encoded or not."""
    return (type.value_type if type.id == _DICTIONARY else type).id in _TEXTS


def is_bytes(type: pa.DataType) -> bool:
    """Tells whether values of the type are bytes."""
    return type.id in _BYTES


def is_list(type: pa.DataType) -> bool:
    """Tells whether values of the type are lists."""
    return type.id in _LISTS


def list_lengths(array: pa.Array) -> npt.NDArray[np.int64]:
    """Returns how many values each list of an array holds, int64 [rows]; none where it is null."""
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)


def numpy_dtype(type: pa.DataType) -> np.dtype[Any]:
    """Returns the numpy type of an Arrow number's values, as they lie in memory. pyarrow's own way needs pandas."""
    kind = "f" if pa.types.is_floating(type) else "i" if pa.types.is_signed_integer(type) else "u"
    return np.dtype(f"{kind}{type.bit_width // 8}")


def depth_of(type: pa.DataType) -> int:
    """Returns how many lists a value of the type is nested in."""
    return 1 + depth_of(type.value_type) if is_list(type) else 0


def leaf_of(type: pa.DataType) -> pa.DataType:
    """Returns the type of the values inside all lists."""
    return leaf_of(type.value_type) if is_list(type) else type


def describe(source: pa.DataType, target: pa.DataType) -> str | None:
    """Returns how values of `source` become `target`, in words; None if they cannot.

    >>> describe(pa.int32(), pa.int64())
    'widened'
    >>> describe(pa.float64(), pa.string()) is None
    True
    """
    source, target = leaf_of(source), leaf_of(target)
    plain = source.value_type if pa.types.is_dictionary(source) else source
    if pa.types.is_null(plain):
        return "all missing"
    if is_text(target):
        if is_text(plain):
            return "as it is"
        if base64_values.is_object(plain):
            return "bytes in base64"
        if pa.types.is_integer(plain) or pa.types.is_boolean(plain):
            return "written as text"
        return None
    if plain == target:
        return "as it is"
    if is_text(plain):
        return None if is_bytes(plain) else "parsed, value by value"
    return _describe_number(plain, target)


def _describe_number(source: pa.DataType, target: pa.DataType) -> str | None:
    if pa.types.is_boolean(target):
        return "0 or 1, value by value" if pa.types.is_integer(source) else None
    if pa.types.is_boolean(source):
        return "0 or 1"
    if pa.types.is_floating(source) and pa.types.is_floating(target):
        return "widened" if target.bit_width > source.bit_width else f"rounded to {target}"
    if pa.types.is_decimal(source) and pa.types.is_floating(target):
        return f"rounded to {target}"
    if pa.types.is_integer(source) and pa.types.is_integer(target):
        unsigned_fits = pa.types.is_unsigned_integer(source) or pa.types.is_signed_integer(target)
        wider = target.bit_width > source.bit_width
        same_sign = pa.types.is_signed_integer(source) == pa.types.is_signed_integer(target)
        return "widened" if wider and (same_sign or unsigned_fits) else "checked, value by value"
    numeric = pa.types.is_integer(source) or pa.types.is_floating(source) or pa.types.is_decimal(source)
    return "checked, value by value" if numeric else None


def coerce(values: pa.Array, target: pa.DataType) -> tuple[pa.Array, Failures]:
    """Converts `values` to the scalar type `target`.

    Returns:
      The converted array, of the same length (null where a value could not be converted), and a message for
      each of those rows. Text targets keep string, binary and dictionary arrays as they are.
    """
    source = values.type
    if source == target or (is_text(target) and is_text(source)):
        return values, {}
    if is_text(target) and base64_values.is_object(source):
        return base64_values.from_objects(values)
    if pa.types.is_dictionary(source):
        words, failures = coerce(values.dictionary, target)
        taken = words.take(values.indices)
        if not failures:
            return taken, {}
        rows = values.indices.to_pylist()
        return taken, {row: failures[index] for row, index in enumerate(rows) if index in failures}
    return by_value(values, target, _cast_to(source, target))


def coerce_encoded(values: pa.Array, target: pa.DataType, encoding: str) -> tuple[pa.Array, Failures]:
    """Converts `values` as `coerce` does, after decoding their text if it has an encoding, such as "base64"."""
    if encoding and is_text(values.type):
        return base64_values.from_text(values)
    return coerce(values, target)


def _cast_to(source: pa.DataType, target: pa.DataType) -> _Cast:
    if is_text(target) and pa.types.is_boolean(source):
        return _bool_to_text
    if pa.types.is_boolean(target) and pa.types.is_integer(source):
        return _integer_to_bool
    if is_text(source) and not is_text(target):
        return lambda values: _parse_text(pc.utf8_trim_whitespace(values), target)
    if pa.types.is_boolean(source):
        return lambda values: values.cast(pa.uint8()).cast(target)
    if pa.types.is_decimal(source) and pa.types.is_floating(target):
        # Arrow's own cast is not the nearest float: 1.5 becomes 1.5000001.
        return lambda values: _parse_text(values.cast(pa.string()), target)
    if pa.types.is_floating(target):
        return lambda values: _round(values, target)
    return lambda values: values.cast(target)


def _parse_text(values: pa.Array, target: pa.DataType) -> pa.Array:
    if pa.types.is_integer(target):
        return numerals.integers(values, target)
    if pa.types.is_float16(target):
        return _round(numerals.floats(values, pa.float32()), target)
    return numerals.floats(values, target) if pa.types.is_floating(target) else values.cast(target)


def _round(values: pa.Array, target: pa.DataType) -> pa.Array:
    """Numbers to a float; refuses what would become infinite."""
    rounded = values.cast(target)
    infinite = pc.is_inf(rounded.cast(pa.float64()) if pa.types.is_float16(target) else rounded)
    if pa.types.is_floating(values.type):
        infinite = pc.and_(infinite, pc.is_finite(values.cast(pa.float64())))
    if pc.any(infinite).as_py():
        raise pa.ArrowInvalid("too large")
    return rounded


def _bool_to_text(values: pa.Array) -> pa.Array:
    return pc.if_else(values, "True", "False")


def _integer_to_bool(values: pa.Array) -> pa.Array:
    if not pc.all(pc.is_in(values, pa.array([0, 1, None], values.type)), skip_nulls=True).as_py():
        raise pa.ArrowInvalid("neither 0 nor 1")
    return values.cast(pa.bool_())


def by_value(values: pa.Array, target: pa.DataType, cast: _Cast, refusal: str = "is not") -> tuple[pa.Array, Failures]:
    """Casts all values at once; if that fails, finds by bisecting those that cannot be cast.

    Args:
      values: what to cast.
      target: what `cast` makes of it.
      cast: raises ArrowInvalid or ArrowNotImplementedError for values that it cannot cast.
      refusal: what the messages say between such a value and the type.
    """
    pieces: list[pa.Array] = []
    failures: Failures = {}
    pending = [(0, len(values))]
    while pending:
        low, high = pending.pop()
        try:
            pieces.append(cast(values.slice(low, high - low)))
            continue
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            if high - low > 1:
                middle = (low + high) // 2
                pending += [(middle, high), (low, middle)]
                continue
        failures[low] = f"{shown(values[low])} {refusal} a {target}"
        pieces.append(pa.nulls(1, target))
    if len(pieces) == 1:
        return pieces[0], failures
    return pa.concat_arrays(pieces), failures


def shown(value: pa.Scalar) -> str:
    """Returns a value as an error message shows it, at most 80 characters."""
    try:
        text = repr(value.as_py())
    except (ValueError, OverflowError):
        # Python has no such time, or the text is not UTF-8.
        text = f"a {value.type} that cannot be shown"
    return text if len(text) <= 80 else text[:77] + "..."
