"""Converts values to another type that holds the very same: for columns that are written as they were read.

A value is converted if it comes back the same when it is converted back, and if both types are of one kind. All
others are refused, value by value. (What a model takes is less strict: see `inference.columns.coercion`.)

| from | to | |
|---|---|---|
| null | anything | stays null |
| number | number | if it comes back: `7.0` is 7, `7.5` is no integer, 16777217 is no float32 |
| text, bytes | text, bytes | if the bytes are UTF-8 |
| text | number, bool, date, time | if it is written as the value would be: `7` is 7, `007`, `1` for true are not |
| number, bool, date, time | text | if it comes back |
| date | timestamp without a zone, and back | if it is midnight |
| timestamp with a zone | another zone | the same instant |
| bool and number; timestamps with and without a zone; numbers and times | | refused |
| list, struct, map | the same | by what is in them |
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import Failures, by_value, is_bytes, is_list, is_text


def coerce_exactly(values: pa.Array, target: pa.DataType) -> tuple[pa.Array, Failures]:
    """Converts `values` to `target`, if nothing of a value changes.

    Returns:
      The converted array, of the same length (null where a value could not be converted), and a message for
      each of those rows.

    >>> coerce_exactly(pa.array(["7", "007"]), pa.int64())[1]
    {1: "'007' would be changed by becoming a int64"}
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_dictionary(target):
        target = target.value_type
    if values.type == target:
        return values, {}
    if not converts(values.type, target):
        present = values.is_valid().to_numpy(zero_copy_only=False).nonzero()[0].tolist()
        message = f"a {values.type} would be changed by becoming a {target}, the type that the column was planned with"
        return pa.nulls(len(values), target), dict.fromkeys(present, message)
    return by_value(values, target, lambda part: _cast(part, target), "would be changed by becoming")


def converts(source: pa.DataType, target: pa.DataType) -> bool:
    """Tells whether values of one type can be the same values of another type."""
    if source == target or pa.types.is_null(source):
        return True
    if is_list(source) and is_list(target):
        return converts(source.value_type, target.value_type)
    if pa.types.is_map(source) and pa.types.is_map(target):
        return converts(source.key_type, target.key_type) and converts(source.item_type, target.item_type)
    if pa.types.is_struct(source) and pa.types.is_struct(target):
        names = [field.name for field in source]
        return names == [field.name for field in target] and all(
            converts(a.type, b.type) for a, b in zip(source, target, strict=True)
        )
    kinds = {_kind(source), _kind(target)}
    if "text" in kinds:
        return not kinds & {"", "bytes"} or kinds == {"text", "bytes"}
    return "" not in kinds and (len(kinds) == 1 or kinds == {"date", "timestamp"})


def _kind(type: pa.DataType) -> str:
    if is_bytes(type):
        return "bytes"
    if is_text(type):
        return "text"
    if pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type):
        return "number"
    if pa.types.is_timestamp(type):
        return "instant" if type.tz else "timestamp"
    for test, kind in (
        (pa.types.is_boolean, "bool"),
        (pa.types.is_date, "date"),
        (pa.types.is_time, "time"),
        (pa.types.is_duration, "duration"),
    ):
        if test(type):
            return kind
    return ""


def _cast(values: pa.Array, target: pa.DataType) -> pa.Array:
    """Converts all values; raises ArrowInvalid if one does not come back the same."""
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), target)
    kinds = (values.type, target)
    if any(map(pa.types.is_decimal, kinds)) and any(map(pa.types.is_integer, kinds)):
        # Integers and narrow decimals are not cast into each other, but both into wide ones.
        scale = target.scale if pa.types.is_decimal(target) else values.type.scale
        wide = values.cast(pa.decimal256(76, scale))
        converted = wide.cast(target)
        if not _same(converted.cast(wide.type), wide):
            raise pa.ArrowInvalid("it does not come back the same")
        return converted
    # Arrow's own cast of a decimal is not the nearest float: 1.5 becomes 1.5000001. That of its text is.
    exact = pa.types.is_decimal(values.type) and pa.types.is_floating(target)
    converted = (values.cast(pa.string()) if exact else values).cast(target)
    if not _widens(values.type, target) and not _same(converted.cast(values.type), values):
        raise pa.ArrowInvalid("it does not come back the same")
    return converted


def _widens(source: pa.DataType, target: pa.DataType) -> bool:
    """Tells whether `target` certainly holds all values of `source`, so that the way back need not be tried."""
    if pa.types.is_null(source) or source == target:
        return True
    if is_list(source) and is_list(target):
        # Of a list of nulls there is no way back.
        return _widens(source.value_type, target.value_type)
    if pa.types.is_struct(source) and pa.types.is_struct(target):
        return all(_widens(one.type, other.type) for one, other in zip(source, target, strict=True))
    for test in (pa.types.is_signed_integer, pa.types.is_unsigned_integer, pa.types.is_floating):
        if test(source) and test(target):
            return bool(target.bit_width >= source.bit_width)
    return is_text(source) and is_text(target)


def _same(one: pa.Array, other: pa.Array) -> bool:
    """Tells whether two arrays of one type hold the same values; NaN is the same as NaN."""
    if pa.types.is_floating(one.type):
        one, other = (array.cast(pa.float64()) for array in (one, other))
        nan = pc.and_(pc.is_nan(one), pc.is_nan(other))
        return one.null_count == other.null_count and bool(
            pc.all(pc.fill_null(pc.or_(pc.equal(one, other), nan), True)).as_py()
        )
    if is_list(one.type):
        return bool(one.is_valid().equals(other.is_valid())) and _same(one.flatten(), other.flatten())
    if pa.types.is_struct(one.type):
        parts = zip(one.flatten(), other.flatten(), strict=True)
        return bool(one.is_valid().equals(other.is_valid())) and all(_same(a, b) for a, b in parts)
    return bool(one.equals(other))
