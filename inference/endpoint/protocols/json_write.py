"""Writes columns as JSON text, without touching a row in Python.

Each column becomes an array of texts, one a value: numbers are written by orjson (the shortest text that gives
back the same float32 or float64) and cut at the commas, words of a dictionary are escaped once. Arrow then joins
the texts of each row.

| value | JSON |
|---|---|
| number, bool | as it is, every float with a point or an exponent |
| text | text |
| bytes | `{"b64": "..."}` |
| NaN, infinities | as the protocol wants them: the bare tokens NaN, Infinity, -Infinity, or these as text |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import is_bytes, is_text
from inference.endpoint.protocols.flat import flatten, numbers
from model.specs import TensorSpec

TOKENS = ("NaN", "Infinity", "-Infinity")
"""What TensorFlow Serving reads and writes; JSON itself has no such values."""

TEXTS = ('"NaN"', '"Infinity"', '"-Infinity"')
"""What servers take that parse strictly, and build numpy arrays of what they get."""

_COMMA, _QUOTE, _BACKSLASH = b',"\\'


def rows_json(arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec], non_finite: Sequence[str] = TOKENS) -> bytes:
    """Returns `[{"a": 1.0, "b": "x"}, ...]`: an object for each row.

    Raises:
      RowError: lists of different lengths.
    """
    if not len(arrays[0]):
        return b"[]"
    joined = _rows(arrays, inputs, non_finite, "},")
    return b"".join([b"[", memoryview(joined.buffers()[2])[:-1], b"]"])


def row_lines(
    arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec], non_finite: Sequence[str] = TOKENS
) -> pa.StringArray:
    """Returns `{"a": 1.0, "b": "x"}` and a line end for each row.

    Raises:
      RowError: lists of different lengths.
    """
    return _rows(arrays, inputs, non_finite, "}\n")


def _rows(
    arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec], non_finite: Sequence[str], end: str
) -> pa.StringArray:
    """One text a row: its object, closed by `end`."""
    pieces: list[Any] = []
    for array, spec in zip(arrays, inputs, strict=True):
        key = f"{',' if pieces else '{'}{orjson.dumps(spec.name).decode()}:"
        values, sizes = flatten(array, spec)
        pieces += [key, _lists(_texts(values, non_finite), sizes)]
    return pc.binary_join_element_wise(*pieces, end, "")


def columns_json(arrays: Sequence[pa.Array], inputs: Sequence[TensorSpec], non_finite: Sequence[str] = TOKENS) -> bytes:
    """Returns `{"a": [1.0, ...], "b": ["x", ...]}`: a list for each column.

    Raises:
      RowError: lists of different lengths.
    """
    columns = [
        orjson.dumps(spec.name) + b":" + tensor_json(*flatten(array, spec), non_finite)
        for array, spec in zip(arrays, inputs, strict=True)
    ]
    return b"{" + b",".join(columns) + b"}"


def tensor_json(values: pa.Array, sizes: Sequence[int], non_finite: Sequence[str] = TOKENS) -> bytes:
    """Returns flat values as nested lists of the given sizes."""
    if not is_text(values.type):
        array = numbers(values)
        if array.dtype.kind != "f" or np.isfinite(array).all():
            return orjson.dumps(array.reshape(sizes), option=orjson.OPT_SERIALIZE_NUMPY)
    texts = _lists(_texts(values, non_finite), sizes)
    joined = _join(texts, np.array([0, len(texts)], np.int32))
    return b"".join([b"[", memoryview(joined[0].as_buffer()), b"]"])


def _lists(texts: pa.Array, sizes: Sequence[int]) -> pa.Array:
    """One text a row: its values as lists of the inner sizes."""
    counts = np.cumprod(sizes)
    for size, count in zip(reversed(sizes[1:]), reversed(counts[:-1]), strict=True):
        offsets = np.arange(count + 1, dtype=np.int32) * np.int32(size)
        texts = pc.binary_join_element_wise("[", _join(texts, offsets), "]", "")
    return texts


def _join(texts: pa.Array, offsets: npt.NDArray[np.int32]) -> pa.Array:
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), texts), ",")


def _texts(values: pa.Array, non_finite: Sequence[str]) -> pa.Array:
    """Flat values without nulls as an array of JSON texts."""
    if pa.types.is_dictionary(values.type):
        if len(values.dictionary) > len(values):
            return _texts(values.dictionary_decode(), non_finite)
        return _texts(values.dictionary, non_finite).take(values.indices)
    if not len(values):
        return pa.array([], pa.string())
    if is_bytes(values.type):
        encoded = base64_texts(values)
        return pc.binary_join_element_wise('{"b64":"', encoded, '"}', "")
    if is_text(values.type):
        return pc.binary_join_element_wise('"', _escaped(values.cast(pa.string())), '"', "")
    array = numbers(values)
    texts = _number_texts(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        for found, written in zip((np.isnan(array), np.isposinf(array), np.isneginf(array)), non_finite, strict=True):
            texts = pc.if_else(pa.array(found), written, texts)
    return texts


def _number_texts(array: npt.NDArray[Any]) -> pa.Array:
    """Writes the text that orjson makes of the whole array, cut at the commas; "null" for what is not finite."""
    text = np.frombuffer(orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY), np.uint8)[1:-1]
    is_comma = text == _COMMA
    commas = np.flatnonzero(is_comma)
    ends = np.append(commas, len(text)) - np.arange(len(array))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.StringArray.from_buffers(len(array), pa.py_buffer(offsets), pa.py_buffer(text[~is_comma]))


def _escaped(texts: pa.Array) -> pa.Array:
    """Backslashes, quotes and control characters as JSON escapes them."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    if offsets[0] == offsets[-1]:
        return texts
    data = np.frombuffer(texts.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    special = np.unique(data[(data < 0x20) | (data == _QUOTE) | (data == _BACKSLASH)]).tolist()
    for code in sorted(special, key=lambda code: code != _BACKSLASH):
        written = orjson.dumps(chr(code)).decode()[1:-1]
        texts = pc.replace_substring(texts, pattern=chr(code), replacement=written)
    return texts


def base64_texts(values: pa.Array) -> pa.Array:
    """Returns bytes as base64."""
    series = pl.Series(values.cast(pa.large_binary()))
    return series.bin.encode("base64").to_arrow().cast(pa.string())
