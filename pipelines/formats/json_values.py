"""Converts values of JSON to the type that their column has, where they are not of it.

| in JSON | in a column of | becomes |
|---|---|---|
| a number | text | its text, as it is written |
| `true` | text | `true`; `True` where it is only for the model, as Python and CSV exports write it |
| `25.0`, `1e3` | integers | 25, 1000 |
| an integer that a float64 does not hold | float64 | refused; the nearest where it is only for the model |
| `"26"` | numbers | 26, if it is written as the number would be; `"007"` only where it is only for the model |
| `true` | numbers | refused |
| `[20.0]` | numbers, text | 20.0 where it is only for the model |
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns import base64_values
from inference.columns.coercion import coerce, is_list, is_text, leaf_of
from pipelines.formats.base import mixed

_DIGITS = 40
"""Digits of the largest integer that is looked at."""

_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"


class Number(str):
    """Keeps a number as it is written."""


class NoFitError(ValueError):
    """Raised when a value is none of the type that its column has."""


def loads(line: bytes, *, lenient: bool = False) -> Any:
    """Parses JSON, numbers as they are written. Raises ValueError, RecursionError.

    Args:
      line: the JSON.
      lenient: takes infinities and bytes that are not UTF-8 too, for what else is in the line.
    """
    text = line.decode("utf-8", "replace" if lenient else "strict")
    constant = Number if lenient else _constant
    return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=constant)


def _constant(name: str) -> Number:
    if name == "NaN":
        # Python and pandas write it, and the parser of whole blocks takes it.
        return Number(name)
    raise ValueError(f"{name} is not JSON")


def text_of(value: Any) -> str:
    """Returns a value as it would be written: text as it is, all else as JSON."""
    return str(value) if isinstance(value, str) else _dumps(value)


def _dumps(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {_dumps(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dumps, value)) + "]"
    return str(value) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def column_of(value: Any, type: pa.DataType, *, written: bool) -> pa.Array:
    """Makes an array of one value of `loads`. Raises NoFitError, OverflowError, pa.ArrowException.

    Args:
      value: the value.
      type: the type of its column.
      written: whether the column is written as it is read, and not only for the model.
    """
    return pa.array([_fit(value, type, written)], type)


def _fit(value: Any, type: pa.DataType, written: bool) -> Any:
    if value is None:
        return None
    if is_list(type):
        if not isinstance(value, list):
            if written or isinstance(value, dict):
                raise NoFitError(_message(value, type))
            value = [value]
        return [_fit(item, type.value_type, written) for item in value]
    if pa.types.is_struct(type):
        if not isinstance(value, dict):
            raise NoFitError(_message(value, type))
        return {field.name: _fit(value.get(field.name), field.type, written) for field in type}
    if isinstance(value, list) and not written:
        if len(value) > 1:
            raise NoFitError(f"{len(value)} values, and one is expected")
        return _fit(value[0], type, written) if value else None
    if isinstance(value, (list, dict)):
        raise NoFitError(_message(value, type))
    return _scalar(value, type, written)


def _scalar(value: Any, type: pa.DataType, written: bool) -> Any:
    if is_text(type):
        return text_of(value) if written or not isinstance(value, bool) else str(value)
    if isinstance(value, bool):
        if pa.types.is_boolean(type):
            return value
        raise NoFitError(_message(value, type))
    if isinstance(value, Number):
        return _number(value, type, written)
    found = _parsed(str(value), value, type)
    if written and pa.array([found], type).cast(pa.string())[0].as_py() != value:
        raise NoFitError(_message(value, type))
    return found


def _parsed(text: str, value: Any, type: pa.DataType) -> Any:
    found, failures = coerce(pa.array([text]), type)
    if failures:
        raise NoFitError(_message(value, type))
    return found[0].as_py()


def _number(value: Number, type: pa.DataType, written: bool) -> Any:
    if pa.types.is_integer(type):
        exact = Decimal(value)
        if exact.adjusted() > _DIGITS or exact != exact.to_integral_value():
            raise NoFitError(_message(value, type))
        return _parsed(str(int(exact)), value, type)
    if pa.types.is_floating(type):
        if written and not is_exact(value):
            raise NoFitError(f"{_shown(value)} would be changed by becoming a {type}")
        return _parsed(str(value), value, type)
    if pa.types.is_boolean(type) and not written and value in ("0", "1"):
        return value == "1"
    raise NoFitError(_message(value, type))


def is_exact(number: str) -> bool:
    """Tells whether a float64 holds a number as it is written; of fractions, whether it is the nearest."""
    if not _INTEGER.fullmatch(number) or len(number) <= 15:
        return True
    return len(number) <= 309 and int(float(number)) == int(number)


def is_exact_within(value: Any) -> bool:
    """Tells whether that is so for all numbers within a value of `loads`."""
    if isinstance(value, (list, dict)):
        return all(map(is_exact_within, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, Number) or is_exact(value)


def other_form(type: pa.DataType) -> pa.DataType | None:
    """Returns the type of objects with base64 for a type of text, and the other way; None for other types. Within
    lists, too.
    """
    if pa.types.is_list(type):
        inner = other_form(type.value_type)
        return None if inner is None else pa.list_(inner)
    if base64_values.is_object(type):
        return pa.string()
    return base64_values.OBJECT if pa.types.is_string(type) else None


def has_other_form(value: Any, type: pa.DataType) -> bool:
    """Tells whether a value is an object with base64 where `type` is of text, or the other way."""
    while isinstance(value, list) and value:
        value = value[0]
    leaf = leaf_of(type)
    if base64_values.is_object(leaf):
        return isinstance(value, str) and not isinstance(value, Number)
    return is_text(leaf) and isinstance(value, dict) and set(value) == {base64_values.NAME}


def _message(value: Any, type: pa.DataType) -> str:
    return f"{_shown(value)} is not a {type}"


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, Number) else _dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def quoted(raw: bytes | memoryview, names: Iterable[str], python_names: Collection[str] = ()) -> memoryview:
    """Makes text of the numbers and booleans that fields of some names have: `"id": 7` becomes `"id": "7"`.

    A name begins behind a brace, a comma or white space and ends before a colon; within a string its quotes would be
    escaped, so nothing else looks like one. Objects within objects are changed too.

    Args:
      raw: lines of JSON.
      names: the fields.
      python_names: those of them whose booleans become `True` and `False`.
    """
    buffer = pa.py_buffer(raw)
    offsets = pa.py_buffer(np.array([0, len(raw)], np.int64))
    whole = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer])
    for name in names:
        spellings = {json.dumps(name), json.dumps(name, ensure_ascii=False)}
        field = r"([{,\s](?:" + "|".join(map(_literal, sorted(spellings))) + r")\s*:\s*)"
        for value, text in (("true", "True"), ("false", "False")) if name in python_names else ():
            whole = pc.replace_substring_regex(whole, field + value + r"([\s,}])", rf'\1"{text}"\2')
        whole = pc.replace_substring_regex(whole, rf"{field}({_NUMBER}|NaN|true|false)([\s,}}])", r'\1"\2"\3')
    return memoryview(whole[0].as_buffer())


def _literal(text: str) -> str:
    """A pattern that matches the bytes of a text."""
    return "".join(chr(b) if b < 128 and chr(b).isalnum() else f"\\x{b:02x}" for b in text.encode())


def nested_names(types: Iterable[pa.DataType]) -> set[str]:
    """Returns the names of all fields of objects within values of these types."""
    found: set[str] = set()
    for type in types:
        if pa.types.is_struct(type):
            found |= {field.name for field in type} | nested_names(field.type for field in type)
        elif is_list(type):
            found |= nested_names([type.value_type])
    return found


def marked(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Schema:
    """Returns the columns of a sample; marks those some of whose values would change by becoming values of
    their type.
    """
    fields = []
    for field in schema:
        kinds = {_kind(value) for row in rows if (value := row.get(field.name)) is not None}
        both = "text" in kinds and len(kinds & {"number", "large"}) > 0
        lossy = pa.types.is_floating(field.type) and "large" in kinds
        scalar = is_text(field.type) or pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        fields.append(mixed(field) if scalar and (both or lossy) else field)
    return pa.schema(fields)


def _kind(value: Any) -> str:
    if isinstance(value, Number):
        return "number" if is_exact(value) else "large"
    return "text" if isinstance(value, str) else "other"
