"""Reads JSON values into columns; what a server sends is checked value by value, in C code of the interpreter.

| output | JSON |
|---|---|
| float | numbers; the nearest float32 (float16, bfloat16) of the text |
| integer | whole numbers, `3.0` too, that the type can hold |
| bool | true, false |
| text | text, or `{"b64": "..."}` everywhere |
| [batch], [batch, 1] | `v` or `[v]` a row |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from inference.columns.coercion import depth_of, is_text, leaf_of, numpy_dtype
from inference.endpoint.protocols.flat import check_rows, fit
from inference.errors import ForeignAnswerError, NoPredictionError, ResponseError
from inference.tensors import output_type
from model.specs import TensorSpec

_EXACT = 2**53
_KINDS: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def kind(value: object) -> str:
    """Returns what a JSON value is, in words."""
    return _KINDS.get(type(value), type(value).__name__)


def read_columns(columns: Mapping[str, Any], rows: int, outputs: Sequence[TensorSpec]) -> dict[str, pa.Array]:
    """Returns the outputs in an object of one list an output.

    Raises:
      ResponseError: one is missing, not of `rows` rows, or not of the announced type.
    """
    require(columns, outputs)
    return {spec.name: read(columns[spec.name], spec, rows) for spec in outputs}


def require(found: Mapping[str, Any], outputs: Sequence[TensorSpec]) -> None:
    """Raises ForeignAnswerError if an output is not among those found."""
    missing = [spec.name for spec in outputs if spec.name not in found]
    if missing:
        there = ", ".join(map(repr, list(found)[:20])) or "none"
        raise ForeignAnswerError(f"the answer lacks output {', '.join(map(repr, missing))}; it has {there}"[:500])


def read_rows(predictions: object, rows: int, outputs: Sequence[TensorSpec]) -> dict[str, pa.Array]:
    """Returns the outputs in a list of one prediction a row: a value, if there is one output, or an object of them.

    Raises:
      ResponseError: there are not `rows` predictions, or one lacks an output or is not of the announced type.
    """
    if type(predictions) is not list:
        raise ResponseError(f"the predictions are {kind(predictions)}, not a list")
    check_rows(len(predictions), rows)
    first = predictions[0] if predictions else None
    if len(outputs) == 1 and (type(first) is not dict or set(first) == {"b64"} != {outputs[0].name}):
        return {outputs[0].name: read(predictions, outputs[0], rows)}
    return {spec.name: read(_pick(predictions, spec.name), spec, rows) for spec in outputs}


def _pick(predictions: list[Any], name: str) -> list[Any]:
    """What every prediction says of one output."""
    try:
        if set(map(type, predictions)) <= {dict}:
            return list(map(itemgetter(name), predictions))
    except KeyError:
        pass
    for row, prediction in enumerate(predictions):
        if type(prediction) is not dict:
            raise ResponseError(f"the prediction of row {row} is {kind(prediction)}, not an object of the outputs")
        if name not in prediction:
            there = ", ".join(map(repr, list(prediction)[:20])) or "none"
            others = row or any(type(other) is dict and name in other for other in predictions)
            error = ResponseError if others else ForeignAnswerError
            raise error(f"the prediction of row {row} lacks output '{name}'; it has {there}"[:500])
    raise AssertionError("a prediction is neither whole nor lacking")


def read(values: object, spec: TensorSpec, rows: int) -> pa.Array:
    """Returns the column of one output, of the type that `inference.tensors.output_type` says.

    Raises:
      ResponseError: there are not `rows` values, or one is missing, or not of the announced type.
      NoPredictionError: one is null.
      RequestRefusedError: bytes that are not UTF-8 text.
    """
    name = f"output '{spec.name}'"
    if type(values) is not list:
        raise ResponseError(f"{name} is {kind(values)}, not a list of a value a row")
    check_rows(len(values), rows, f"{name}: ")
    wanted = output_type(spec)
    announced = (spec.shape or ())[1:]
    lists = _Lists(spec.name)
    for level in range(depth_of(wanted)):
        values = lists.open(values, announced[level] if spec.kind == "dense" else None)
    while not depth_of(wanted) and values and type(values[0]) is list:
        values = lists.open(values, 1)
    array = leaves(values, leaf_of(wanted), lists)
    return lists.close(array) if depth_of(wanted) else array


class _Lists:
    """The lists around the values of an output, opened from the outermost."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lengths: list[npt.NDArray[np.int64]] = []

    def open(self, values: list[Any], size: int | None) -> list[Any]:
        """What is in the lists, one after the other; each must have `size` values, if that is known."""
        others = set(map(type, values)) - {list}
        if others:
            place = next(index for index, value in enumerate(values) if type(value) is not list)
            raise self.error(place, f"is {kind(values[place])}, where a list was announced")
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        if size is not None and (lengths != size).any():
            place = int(np.flatnonzero(lengths != size)[0])
            raise self.error(place, f"has {lengths[place]} values in a list, where {size} were announced")
        self._lengths.append(lengths)
        return list(chain.from_iterable(values))

    def close(self, array: pa.Array) -> pa.Array:
        """The values in their lists again."""
        for lengths in reversed(self._lengths):
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            array = pa.ListArray.from_arrays(pa.array(offsets), array)
        return array

    def error(self, place: int, what: str) -> ResponseError:
        """The error for the value at a place among those opened last."""
        for lengths in reversed(self._lengths):
            place = int(np.searchsorted(np.cumsum(lengths), place, side="right"))
        return ResponseError(f"output '{self.name}' {what} (row {place})")


def flat_leaves(values: object, type_: pa.DataType, name: str) -> pa.Array:
    """Returns the values of a tensor, flat or nested in lists.

    Raises:
      ResponseError: one is not of the type.
    """
    if type(values) is not list:
        raise ResponseError(f"output '{name}' is {kind(values)}, not a list")
    lists = _Lists(name)
    while values and type(values[0]) is list:
        values = lists.open(values, None)
    return leaves(values, type_, lists)


def leaves(values: list[Any], wanted: pa.DataType, lists: _Lists) -> pa.Array:
    """Returns values without lists as an array of type `wanted`.

    Raises:
      ResponseError: one is not of the type.
      RequestRefusedError: bytes that are not UTF-8 text.
    """
    kinds = set(map(type, values))
    if is_text(wanted):
        return _texts(values, kinds, wanted, lists)
    if pa.types.is_boolean(wanted):
        _only(values, {bool}, wanted, lists)
        return pa.array(values, wanted)
    _only(values, {int, float}, wanted, lists)
    if pa.types.is_floating(wanted):
        return _floats(values, wanted, lists)
    if float in kinds:
        values = _whole(values, wanted, lists)
    try:
        return pa.array(values, wanted)
    except (pa.ArrowInvalid, OverflowError):
        info = np.iinfo(numpy_dtype(wanted))
        place = next(index for index, value in enumerate(values) if not info.min <= value <= info.max)
        raise lists.error(place, f"has {str(values[place])[:40]}, which is too large for {wanted}") from None


def _only(values: list[Any], allowed: set[type], wanted: pa.DataType, lists: _Lists) -> None:
    if set(map(type, values)) <= allowed:
        return
    place = next(index for index, value in enumerate(values) if type(value) not in allowed)
    error = lists.error(place, f"is {kind(values[place])}, where {wanted} was announced")
    # A server whose JSON has no NaN writes null.
    raise NoPredictionError(str(error)) if values[place] is None else error


def _floats(values: list[Any], wanted: pa.DataType, lists: _Lists) -> pa.Array:
    try:
        exact = np.array(values, np.float64)
    except OverflowError:
        place = next(index for index, value in enumerate(values) if abs(value) > 1e308)
        raise lists.error(place, f"has a number that is too large for {wanted}") from None
    with np.errstate(over="ignore"):
        array = exact.astype(numpy_dtype(wanted))
    lost = np.isinf(array) & np.isfinite(exact)
    if lost.any():
        place = int(np.flatnonzero(lost)[0])
        raise lists.error(place, f"has {values[place]}, which is too large for {wanted}")
    return pa.array(array, wanted)


def _whole(values: list[Any], wanted: pa.DataType, lists: _Lists) -> list[int]:
    """Whole numbers that were written with a point."""
    for place, value in enumerate(values):
        if type(value) is float and not (value.is_integer() and abs(value) <= _EXACT):
            raise lists.error(place, f"has {value}, where {wanted} was announced")
    return list(map(int, values))


def _texts(values: list[Any], kinds: set[type], wanted: pa.DataType, lists: _Lists) -> pa.Array:
    if kinds == {dict}:
        return fit(_decoded(values, lists), wanted, lists.name)
    _only(values, {str}, wanted, lists)
    try:
        return pa.array(values, wanted)
    except UnicodeEncodeError:
        raise ResponseError(f"output '{lists.name}' has half of a surrogate pair, which is no text") from None


def _decoded(values: list[Any], lists: _Lists) -> pa.Array:
    """The bytes in objects `{"b64": "..."}`."""
    place = next((index for index, value in enumerate(values) if list(value) != ["b64"]), None)
    if place is not None:
        raise lists.error(place, 'is an object, but not {"b64": ...}')
    texts = list(map(itemgetter("b64"), values))
    _only(texts, {str}, pa.string(), lists)
    try:
        return pl.Series(texts, dtype=pl.String).str.decode("base64").to_arrow().cast(pa.binary())
    except pl.exceptions.ComputeError:
        raise ResponseError(f"output '{lists.name}' has text that is not base64") from None
