"""Merges the types that a column has in different files of a source, if no value is lost by it.

| types | become |
|---|---|
| null, and any other | the other |
| integers | the narrowest integer that holds both |
| integer and float | a float that holds both; int64 becomes float64, and each value is checked when it is converted |
| floats | the wider |
| strings, large strings, views, dictionaries of them | string (large where one is); with bytes among them, bytes |
| timestamps, times, durations of different units | the finer unit |
| decimals | a decimal that holds both |
| lists, structs | the same of the types in them |
| all else | no type: the first one stays, and what does not convert becomes a dead letter |
"""

from __future__ import annotations

import pyarrow as pa

from inference.columns.coercion import is_bytes, is_list, is_text

_LARGEST_EXACT_BITS = {pa.float16(): 11, pa.float32(): 24, pa.float64(): 53}
_SIGNED = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
_FLOATS = (pa.float16(), pa.float32(), pa.float64())
_UNITS = ("s", "ms", "us", "ns")


def merged(a: pa.DataType, b: pa.DataType, *, identifies: bool = False) -> pa.DataType | None:
    """Returns the type that holds the values of both types; None if there is none.

    Args:
      a: a type.
      b: another.
      identifies: the column is a key: whole numbers stay integers, as `7` and `7.0` are different keys.

    >>> merged(pa.int32(), pa.uint32()), merged(pa.null(), pa.string()), merged(pa.int64(), pa.string())
    (DataType(int64), DataType(string), None)
    """
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if is_text(a) and is_text(b):
        return _text(a, b)
    if pa.types.is_dictionary(a) or pa.types.is_dictionary(b):
        return merged(_plain(a), _plain(b), identifies=identifies)
    if is_list(a) and is_list(b):
        return _list(a, b)
    if _is_number(a) and _is_number(b):
        return _number(a, b, identifies)
    if pa.types.is_timestamp(a) and pa.types.is_timestamp(b):
        return pa.timestamp(_finer(a, b), a.tz) if a.tz == b.tz else None
    if pa.types.is_duration(a) and pa.types.is_duration(b):
        return pa.duration(_finer(a, b))
    if pa.types.is_time(a) and pa.types.is_time(b):
        unit = _finer(a, b)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        return _struct(a, b)
    return None


def are_alike(a: pa.DataType, b: pa.DataType) -> bool:
    """Tells whether two types differ only in how the same values are held, or one holds none."""
    plain = [_plain(type) for type in (a, b)]
    if any(pa.types.is_null(type) for type in plain):
        return True
    return plain[0] == plain[1] or (is_text(a) and is_text(b) and is_bytes(plain[0]) == is_bytes(plain[1]))


def _plain(type: pa.DataType) -> pa.DataType:
    return type.value_type if pa.types.is_dictionary(type) else type


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type))


def _text(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    plain = [_plain(a), _plain(b)]
    large = any(pa.types.is_large_string(type) or pa.types.is_large_binary(type) for type in plain)
    if any(is_bytes(type) for type in plain):
        return pa.large_binary() if large else pa.binary()
    return pa.large_string() if large else pa.string()


def _number(a: pa.DataType, b: pa.DataType, identifies: bool) -> pa.DataType | None:
    if pa.types.is_integer(a) and pa.types.is_integer(b):
        return _integer(a, b)
    if pa.types.is_floating(a) and pa.types.is_floating(b):
        return a if a.bit_width > b.bit_width else b
    if pa.types.is_decimal(a) or pa.types.is_decimal(b):
        return _decimal(a, b)
    integer, floating = (a, b) if pa.types.is_integer(a) else (b, a)
    if identifies:
        return integer
    bits = integer.bit_width - pa.types.is_signed_integer(integer)
    holds = [type for type in _FLOATS if type.bit_width >= floating.bit_width and _LARGEST_EXACT_BITS[type] >= bits]
    return holds[0] if holds else pa.float64()


def _integer(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if pa.types.is_signed_integer(a) == pa.types.is_signed_integer(b):
        return a if a.bit_width > b.bit_width else b
    signed, unsigned = (a, b) if pa.types.is_signed_integer(a) else (b, a)
    width = max(signed.bit_width, 2 * unsigned.bit_width)
    # No integer holds both int64 and uint64; a decimal does.
    return _SIGNED.get(width) or pa.decimal128(20, 0)


def _decimal(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if pa.types.is_floating(a) or pa.types.is_floating(b):
        return None
    sizes = [(t.precision - t.scale, t.scale) if pa.types.is_decimal(t) else (20, 0) for t in (a, b)]
    whole, scale = max(size[0] for size in sizes), max(size[1] for size in sizes)
    if whole + scale > 76:
        return None
    return pa.decimal128(whole + scale, scale) if whole + scale <= 38 else pa.decimal256(whole + scale, scale)


def _finer(a: pa.DataType, b: pa.DataType) -> str:
    return _UNITS[max(_UNITS.index(a.unit), _UNITS.index(b.unit))]


def _list(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    values = merged(a.value_type, b.value_type)
    if values is None:
        return None
    large = pa.types.is_large_list(a) or pa.types.is_large_list(b)
    return pa.large_list(values) if large else pa.list_(values)


def _struct(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    fields: dict[str, pa.DataType | None] = {field.name: field.type for field in a}
    for field in b:
        known = fields.get(field.name, field.type)
        fields[field.name] = None if known is None else merged(known, field.type)
    if len(fields) < max(a.num_fields, b.num_fields) or None in fields.values():
        return None
    return pa.struct(list(fields.items()))
