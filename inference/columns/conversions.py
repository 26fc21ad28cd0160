"""Tells what an input takes: the type of its values, how a column becomes them, and which default suits them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from inference.columns import shapes
from inference.columns.bound import arrow_type
from inference.columns.coercion import coerce, describe, is_text
from inference.errors import BindingError
from model.specs import TensorSpec


def type_of(spec: TensorSpec) -> pa.DataType:
    """Returns the type of an input's values. Raises BindingError if no column can feed it."""
    type = arrow_type(spec.dtype)
    if type is None:
        raise BindingError([f"input '{spec.name}' is a {spec.dtype}: no column can give that"])
    if spec.shape == () and spec.kind == "dense":
        raise BindingError(
            [
                f"input '{spec.name}' is a single value, not one a row; export a signature whose inputs have a "
                "batch dimension"
            ]
        )
    return type


def conversion(spec: TensorSpec, name: str, column_type: pa.DataType, type: pa.DataType) -> str:
    """Returns how a column becomes values of an input, in words. Raises BindingError if it cannot."""
    coercion = describe(column_type, type)
    if coercion is None:
        raise BindingError(
            [
                f"column '{name}' is {column_type}, and input '{spec.name}' takes {spec.dtype}: there is no "
                "conversion that loses nothing; convert it in the source, or map another column in source.columns"
            ]
        )
    return coercion


def checked_default(spec: TensorSpec, value: Any, type: pa.DataType, depth: int) -> Any:
    """Returns the default as values of the input's type; raises BindingError if it does not fit the type or the
    shape.
    """
    typed = typed_default(spec, value, type)
    try:
        shapes.fitted(typed, spec, depth)
    except ValueError as error:
        shown = text if len(text := repr(value)) <= 60 else text[:57] + "..."
        raise BindingError(
            [f"source.defaults: {shown} does not fit input '{spec.name}' of shape {shapes.in_words(spec)}: {error}"]
        ) from None
    return typed


def typed_default(spec: TensorSpec, value: Any, type: pa.DataType) -> Any:
    """Returns the default as values of the input's type; "NaN" stands for a float that is not a number."""
    try:
        if isinstance(value, list):
            return [typed_default(spec, item, type) for item in value]
        if pa.types.is_floating(type):
            _, failures = coerce(pa.array([float(value)]), type)
            if failures:
                raise OverflowError(failures[0])
            return float(value)
        if is_text(type):
            return value if isinstance(value, str) else str(value)
        return pa.scalar(value, type).as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError, OverflowError):
        raise BindingError(
            [f"source.defaults: {value!r} does not suit input '{spec.name}', which takes {spec.dtype}"]
        ) from None
