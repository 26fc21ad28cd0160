"""Reads numbers from their text, exactly.

| text | an integer | a float |
|---|---|---|
| `25`, ` 25 `, `+25`, `25.0`, `2.5e1` | 25 | 25.0 |
| `9007199254740993.0` | 9007199254740993 | the nearest |
| `25.5` | refused | 25.5 |
| `1e40` | refused | refused by float32, else 1e40 |
| `inf`, `-Infinity` | refused | infinite |
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_DECIMAL = pa.decimal256(76, 38)
_WHOLE = pa.decimal256(38, 0)
_INFINITY = r"^[+-]?inf(inity)?$"


def integers(texts: pa.Array, type: pa.DataType) -> pa.Array:
    """Parses integers, among them whole numbers that are written as floats. Raises pa.ArrowInvalid.

    >>> integers(pa.array(["7", "+7", "1e3", "9007199254740993.0"]), pa.int64()).to_pylist()
    [7, 7, 1000, 9007199254740993]
    """
    try:
        return texts.cast(type)
    except pa.ArrowInvalid:
        return texts.cast(_DECIMAL).cast(_WHOLE).cast(pa.string()).cast(type)


def floats(texts: pa.Array, type: pa.DataType) -> pa.Array:
    """Parses floats, each to the nearest of the type. Raises pa.ArrowInvalid, also for numbers that are too large.

    >>> floats(pa.array(["0.1", "+2", "-inf"]), pa.float64()).to_pylist()
    [0.1, 2.0, -inf]
    """
    try:
        parsed = texts.cast(type)
    except pa.ArrowInvalid:
        parsed = pc.replace_substring_regex(texts, r"^\+([0-9.])", r"\1").cast(type)
    infinite = pc.is_inf(parsed)
    if pc.any(infinite).as_py():
        said = pc.match_substring_regex(texts.filter(infinite), _INFINITY, ignore_case=True)
        if not pc.all(said).as_py():
            raise pa.ArrowInvalid("too large")
    return parsed
