"""Converts values to the type that their column has in a file: text where a format has no such type.

| value | as text |
|---|---|
| bytes | the text that they are in UTF-8; others are refused |
| bool | `true`, `false` |
| duration, interval | ISO 8601: `PT1.5S`, `P1M2DT0.5S` |
| decimal, date, time, timestamp | ISO 8601 with a space, digits as they are |
| list, struct, map | JSON |

Which type a column has is decided when a run is planned, by `Writer.output_type`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import is_bytes, is_list, is_text, leaf_of, list_lengths
from inference.columns.nulls import kept_where
from pipelines.formats.base import FormatError, encoding
from pipelines.formats.readable import readable_array, readable_type

_UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_MAX_DECIMAL = 38


def has_text(type: pa.DataType) -> bool:
    """Tells whether a value that is not nested can be written as text."""
    intervals = pa.types.is_interval(type) and type != pa.month_day_nano_interval()
    return not intervals and not pa.types.is_nested(type)


def text_type(type: pa.DataType, name: str) -> pa.DataType:
    """Returns the type of text. Raises FormatError if values of `type` cannot be written as text.

    Args:
      type: of the values.
      name: of the format.
    """
    if not has_text(type):
        raise refusal(type, name)
    return pa.string()


def refusal(type: pa.DataType, name: str) -> FormatError:
    """Returns what is said of a type that a format cannot hold."""
    return FormatError(f"{name} cannot hold columns of type {type}; leave it out, or convert it in the source")


def nested_type(type: pa.DataType, leaf: Callable[[pa.DataType], pa.DataType], name: str) -> pa.DataType:
    """Returns a type whose innermost types are those that `leaf` gives for them; maps are lists of `key`, `value`
    structs.

    Raises FormatError for unions, and for structs without fields or with two of one name.
    """
    type = readable_type(type, nested=True)
    if is_list(type):
        return pa.list_(nested_type(type.value_type, leaf, name))
    if pa.types.is_map(type):
        pair = [("key", type.key_type), ("value", type.item_type)]
        return pa.list_(pa.struct([(part, nested_type(of, leaf, name)) for part, of in pair]))
    if pa.types.is_struct(type):
        names = [field.name for field in type]
        if not names or len(set(names)) < len(names):
            raise refusal(type, name)
        return pa.struct([(field.name, nested_type(field.type, leaf, name)) for field in type])
    if pa.types.is_nested(type):
        raise refusal(type, name)
    return leaf(type)


def polars_type(type: pa.DataType, name: str) -> pa.DataType:
    """Returns the type that a value, not nested, has in text that polars writes. Raises FormatError if there is
    none.
    """
    if pa.types.is_duration(type) or pa.types.is_interval(type) or is_bytes(type):
        return text_type(type, name)
    if pa.types.is_decimal(type):
        return (
            pa.decimal128(type.precision, type.scale)
            if 0 <= type.scale <= type.precision <= _MAX_DECIMAL
            else pa.string()
        )
    if pa.types.is_timestamp(type) and type.tz not in (None, "UTC") and not _polars_knows(type):
        return pa.timestamp(type.unit, "UTC")
    return type


def _polars_knows(type: pa.DataType) -> bool:
    """Tells whether polars knows a type's time zone."""
    import polars as pl

    try:
        pl.DataFrame(pl.from_arrow(pa.record_batch({"a": pa.array([0], type)}))).write_csv()
    except pl.exceptions.PolarsError:
        return False
    return True


def to_output(array: pa.Array, type: pa.DataType) -> pa.Array:
    """Returns an array as the type that its column has in the file.

    Raises ArrowInvalid (or ArrowNotImplementedError) if a value cannot be of that type.
    """
    if array.type == type:
        return array
    array = readable_array(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.type == type:
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), type)
    if pa.types.is_string(type):
        return text_of(array)
    if is_list(type) and (is_list(array.type) or pa.types.is_map(array.type)):
        return _lists(array, type)
    if pa.types.is_struct(type) and pa.types.is_struct(array.type):
        mask = array.is_null() if array.null_count else None
        columns = [to_output(part, field.type) for part, field in zip(array.flatten(), type, strict=True)]
        return pa.StructArray.from_arrays(columns, fields=list(type), mask=mask)
    return array.cast(type)


def _lists(array: pa.Array, type: pa.DataType) -> pa.Array:
    mask = array.is_null() if array.null_count else None
    if pa.types.is_map(array.type):
        offsets = pa.array(array.offsets.to_numpy(), pa.int32())
        pairs = pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
        return pa.ListArray.from_arrays(offsets, to_output(pairs, type.value_type), mask=mask)
    lengths = np.zeros(len(array) + 1, np.int64)
    np.cumsum(list_lengths(array), out=lengths[1:])
    values = to_output(array.flatten(), type.value_type)
    lists = pa.ListArray.from_arrays(pa.array(lengths, pa.int64()).cast(pa.int32()), values, mask=mask)
    return lists if lists.type == type else lists.cast(type)


def text_of(array: pa.Array) -> pa.Array:
    """Returns values as text. Raises ArrowInvalid for bytes that are no text."""
    type = array.type
    if pa.types.is_nested(type):
        return json_text(array)
    if pa.types.is_duration(type):
        counts = array.cast(pa.int64()).fill_null(0).to_numpy()
        return kept_where(
            pc.binary_join_element_wise(_signs(counts), "PT", _seconds(counts, type.unit), ""), array.is_valid()
        )
    if pa.types.is_interval(type):
        return _interval_text(array)
    if is_bytes(type):
        array = array.cast(pa.large_binary())
    return array.cast(pa.string())


def _signs(counts: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array(np.array(["", "-"], object)[(counts < 0).astype(np.int8)], pa.string())


def _seconds(counts: npt.NDArray[np.int64], unit: str) -> pa.Array:
    """The last part of an ISO 8601 duration, without its sign."""
    digits = _UNITS[unit]
    # What the smallest integer becomes is right without a sign.
    magnitude = np.abs(counts).view(np.uint64)
    seconds, rest = np.divmod(magnitude, np.uint64(10**digits))
    whole, part = (pa.array(values, pa.uint64()).cast(pa.string()) for values in (seconds, rest))
    fraction = pc.utf8_rtrim(pc.utf8_lpad(part, max(digits, 1), "0"), "0")
    return pc.binary_join_element_wise(whole, pc.if_else(pc.equal(fraction, ""), "", "."), fraction, "S", "")


def _interval_text(array: pa.Array) -> pa.Array:
    """ISO 8601 of months, days and nanoseconds; each of them may be negative."""
    if array.type != pa.month_day_nano_interval():
        raise pa.ArrowNotImplementedError(f"values of type {array.type} have no text")
    layout = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])
    parts = np.frombuffer(array.buffers()[1] or b"", layout)[array.offset : array.offset + len(array)]
    months, days = (pa.array(parts[name]).cast(pa.string()) for name in ("months", "days"))
    time = np.ascontiguousarray(parts["nanoseconds"])
    text = pc.binary_join_element_wise("P", months, "M", days, "DT", _signs(time), _seconds(time, "ns"), "")
    return kept_where(text, array.is_valid())


def json_text(array: pa.Array) -> pa.Array:
    """Writes nested values as JSON text, null for NaN and infinities; lists of numbers without touching a row."""
    if is_list(array.type) and (
        pa.types.is_integer(array.type.value_type) or pa.types.is_floating(array.type.value_type)
    ):
        values = array.flatten()
        text = values.cast(pa.string())
        if pa.types.is_floating(values.type):
            # JSON has no other numbers.
            text = pc.if_else(pc.is_finite(values.cast(pa.float64())), text, "null")
        offsets = np.zeros(len(array) + 1, np.int32)
        np.cumsum(list_lengths(array), out=offsets[1:])
        mask = array.is_null() if array.null_count else None
        lists = pa.ListArray.from_arrays(pa.array(offsets), pc.fill_null(text, "null"), mask=mask)
        return pc.binary_join_element_wise("[", pc.binary_join(lists, ", "), "]", "")
    import polars as pl

    plain = to_output(array, nested_type(array.type, lambda type: polars_type(type, "JSON"), "JSON"))
    encoded = io.BytesIO()
    with encoding("JSON"):
        pl.DataFrame(pl.from_arrow(pa.record_batch({"a": plain}))).write_ndjson(encoded)
    lines = encoded.getvalue().split(b"\n")[: len(plain)]
    texts = pa.array([line[len(b'{"a":') : -1] for line in lines], pa.binary()).cast(pa.string())
    return kept_where(texts, plain.is_valid())


def key_texts(array: pa.Array) -> list[str | None]:
    """Writes keys as dead letters have them: as a CSV file does; bytes that are no text with escapes.

    >>> key_texts(pa.array([b"b", None]))
    ['b', None]
    """
    array = readable_array(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if is_text(array.type):
        raw = array.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "backslashreplace") for value in raw]
    try:
        wanted = pa.string() if pa.types.is_nested(array.type) else polars_type(array.type, "CSV")
        return list(_csv_text(to_output(array, wanted)).to_pylist())
    except (FormatError, pa.ArrowException):
        if len(array) == 1:
            return [None]
        return [text for index in range(len(array)) for text in key_texts(array.slice(index, 1))]


def shown_values(array: pa.Array) -> list[Any]:
    """Returns values for people to look at, each of which JSON can hold; None where there is no text for one."""
    inner = leaf_of(readable_type(array.type, nested=True))
    plain = pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner)
    if plain or pa.types.is_null(inner) or (is_text(inner) and not is_bytes(inner)):
        return list(readable_array(array).to_pylist())
    return list(key_texts(array))


def _csv_text(array: pa.Array) -> pa.Array:
    """What CSV has for values, without quotes."""
    if is_text(array.type):
        return array
    import polars as pl

    encoded = io.BytesIO()
    with encoding("CSV"):
        frame = pl.DataFrame(pl.from_arrow(pa.record_batch({"a": array})))
        frame.write_csv(encoded, include_header=False, quote_style="never")
    lines = encoded.getvalue().decode().split("\n")[: len(array)]
    return kept_where(pa.array(lines, pa.string()), array.is_valid())
