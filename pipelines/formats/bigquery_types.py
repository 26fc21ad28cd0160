"""Maps types of BigQuery to those of Arrow, and back."""

from __future__ import annotations

import pyarrow as pa

from inference.columns.coercion import is_list

_ARROW = {
    "INT64": pa.int64(),
    "FLOAT64": pa.float64(),
    "NUMERIC": pa.decimal128(38, 9),
    "BIGNUMERIC": pa.decimal256(76, 38),
    "BOOL": pa.bool_(),
    "STRING": pa.string(),
    "BYTES": pa.binary(),
    "DATE": pa.date32(),
    "DATETIME": pa.timestamp("us"),
    "TIME": pa.time64("us"),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "JSON": pa.string(),
    "GEOGRAPHY": pa.string(),
}
_SAME = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "BIGDECIMAL": "BIGNUMERIC", "DECIMAL": "NUMERIC"}


def standard_name(name: str) -> str:
    """Returns the name of a type in GoogleSQL, such as INT64 for INTEGER."""
    return _SAME.get(name, name)


def arrow_type(name: str) -> pa.DataType | None:
    """Returns the Arrow type of a BigQuery type by its name, such as INT64, INTEGER or ARRAY<STRING>; None if there is
    none.
    """
    if name.startswith("ARRAY<"):
        inner = arrow_type(name[6:-1])
        return None if inner is None else pa.list_(inner)
    return _ARROW.get(standard_name(name))


def type_name(type: pa.DataType) -> str | None:
    """Returns BigQuery's name of a type that its Arrow batches have; None for types that no column here has.

    >>> type_name(pa.list_(pa.timestamp("us", "UTC")))
    'ARRAY<TIMESTAMP>'
    """
    if is_list(type):
        inner = None if is_list(type.value_type) else type_name(type.value_type)
        return None if inner is None else f"ARRAY<{inner}>"
    if pa.types.is_decimal(type):
        return "NUMERIC" if pa.types.is_decimal128(type) and type.scale <= 9 else "BIGNUMERIC"
    if pa.types.is_timestamp(type):
        return "DATETIME" if type.tz is None else "TIMESTAMP"
    if pa.types.is_large_string(type):
        return "STRING"
    return next((name for name, known in _ARROW.items() if known == type), None)
