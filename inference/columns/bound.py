"""Describes what the columns of a batch are to the inputs of a model: plain values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from model.specs import Signature, TensorSpec

ColumnMap = Mapping[str, str | Sequence[str]]
"""Model input -> source column, or the columns that a vector is gathered of."""

_TYPES = {
    "bool": pa.bool_(),
    "string": pa.string(),
    "bfloat16": pa.float32(),
    "half": pa.float16(),
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
}


def arrow_type(dtype: str) -> pa.DataType | None:
    """Returns the Arrow type that holds values of a TensorFlow dtype, or None if there is none (complex, resource)."""
    return _TYPES.get(dtype)


@dataclass(frozen=True)
class Element:
    """Describes one of the columns that an input's values come from.

    Attributes:
      column: its name.
      type: its type; None if the source does not have it, and its default stands in every row.
      coercion: how its values become those of the input, in words.
      default: what a missing value becomes; None if missing values are refused.
      encoding: of its text, "base64"; empty if it is what the model takes.
    """

    column: str
    type: pa.DataType | None
    coercion: str
    default: Any = None
    encoding: str = ""


@dataclass(frozen=True)
class InputBinding:
    """Describes one input of the model and where its values come from.

    Attributes:
      spec: the input (or the feature of a tf.Example, as an input).
      column: the source column; None if every row takes the default, and for a vector of several columns.
      column_type: the column's type; None without a column.
      type: what the values inside all lists are coerced to.
      depth: how many lists a row's value is nested in.
      default: what a missing value becomes; None if missing values are refused.
      coercion: how the column becomes the input, in words.
      optional: a missing value may stay missing (features of tf.Examples that the model has defaults for, and the
        values of sparse and ragged inputs).
      takes_single: a single value of the column is a list of one value: of sparse and ragged inputs, and of features
        of tf.Examples that have any number of values.
      vector: the columns that are gathered, in order, where it is made of several.
      encoding: of the column's text, "base64"; empty if it is what the model takes.
    """

    spec: TensorSpec
    column: str | None
    column_type: pa.DataType | None
    type: pa.DataType
    depth: int
    default: Any = None
    coercion: str = "as it is"
    optional: bool = False
    takes_single: bool = False
    vector: tuple[Element, ...] = ()
    encoding: str = ""

    @property
    def elements(self) -> tuple[Element, ...]:
        """Returns the columns that the source has of those that the values come from."""
        if self.column is not None:
            return (Element(self.column, self.column_type, self.coercion, self.default),)
        return tuple(element for element in self.vector if element.type is not None)

    @property
    def is_constant(self) -> bool:
        """Tells whether every row has the same value: the default."""
        return not self.elements and (self.default is not None or bool(self.vector))


@dataclass(frozen=True)
class Binding:
    """Describes how batches of one schema are fed to a signature.

    Attributes:
      signature: the signature.
      inputs: one for each input; for a tf.Example input that is to be encoded, one for each feature.
      encode_examples: whether the inputs are features to be encoded as tf.Examples.
    """

    signature: Signature
    inputs: tuple[InputBinding, ...]
    encode_examples: bool = False


def column_names(named: str | Sequence[str]) -> list[str]:
    """Returns the columns that an entry of `source.columns` names."""
    return [named] if isinstance(named, str) else list(named)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` if a known name is near, else nothing."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return f"; did you mean '{lowered[near[0]]}'?" if near else ""
