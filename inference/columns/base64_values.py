"""Decodes bytes in columns that cannot hold them: base64 as text, or as TensorFlow Serving's `{"b64": "..."}`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.nulls import kept_where

Failures = dict[int, str]

NAME = "b64"
"""Of the one field of an object that holds bytes."""

OBJECT = pa.struct([(NAME, pa.string())])


def is_object(type: pa.DataType) -> bool:
    """Tells whether values of the type are objects with base64."""
    if not pa.types.is_struct(type) or type.num_fields != 1 or type.field(0).name != NAME:
        return False
    return bool(pa.types.is_string(type.field(0).type) or pa.types.is_large_string(type.field(0).type))


def from_objects(values: pa.StructArray) -> tuple[pa.Array, Failures]:
    """Returns the bytes in objects, binary [values], null for a null; and a message for each that holds none."""
    texts = values.field(NAME)
    if values.null_count:
        texts = kept_where(texts, values.is_valid())
    found, failures = from_text(texts)
    empty = pc.and_(values.is_valid(), texts.is_null()).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(empty).tolist():
        failures[row] = 'an object, but not {"b64": "..."}'
    return found, failures


def from_text(values: pa.Array) -> tuple[pa.Array, Failures]:
    """Returns the bytes of base64 in its standard alphabet with padding, binary [values]; a message for what is none.

    >>> from_text(pa.array(["AP8=", None, "no"]))[1]
    {2: "'no' is not base64"}
    """
    if pa.types.is_dictionary(values.type):
        words, wrong = from_text(values.dictionary)
        indices = values.indices
        rows = np.flatnonzero(pc.is_in(indices, pa.array(list(wrong), indices.type)).to_numpy(zero_copy_only=False))
        return words.take(indices), {row: wrong[indices[row].as_py()] for row in rows.tolist()}
    import polars as pl

    try:
        texts = values.cast(pa.large_binary()).cast(pa.large_string())
    except pa.ArrowInvalid:
        # Bytes that are no text are no base64.
        texts = pa.array([_text_or_mark(raw) for raw in values.cast(pa.large_binary()).to_pylist()], pa.large_string())
    decoded = pl.Series(pl.from_arrow(texts), dtype=pl.String).str.decode("base64", strict=False)
    found = decoded.to_arrow().cast(pa.large_binary()).cast(pa.binary())
    wrong_rows = pc.and_(found.is_null(), values.is_valid()).to_numpy(zero_copy_only=False)
    return found, {row: f"{_shown(texts[row])} is not base64" for row in np.flatnonzero(wrong_rows).tolist()}


def _text_or_mark(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "backslashreplace")


def _shown(value: pa.Scalar) -> str:
    text = value.as_py()
    return repr(text) if len(text) <= 60 else repr(text[:57] + "...")
