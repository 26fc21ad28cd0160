"""Describes inputs that take a vector, gathered of several columns with one value a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from inference.columns import shapes
from inference.columns.bound import Element, InputBinding, did_you_mean
from inference.columns.coercion import is_list
from inference.columns.conversions import conversion, type_of, typed_default
from inference.errors import BindingError
from model.specs import TensorSpec


def bind_vector(spec: TensorSpec, names: list[str], schema: pa.Schema, defaults: Mapping[str, Any]) -> InputBinding:
    """Returns an input that is gathered of several columns, one value of each in a row."""
    type = type_of(spec)
    where = f"source.columns.{spec.name}"
    if not shapes.can_be_flat(spec) or not shapes.fits(len(names), spec):
        takes = "one value" if shapes.is_single(spec) else f"{shapes.count_in_words(spec)} values"
        if not shapes.can_be_flat(spec):
            takes = "lists whose lengths the number of columns does not tell"
        raise BindingError(
            [
                f"{where}: {len(names):,} columns, and input '{spec.name}' has shape {shapes.in_words(spec)}: it takes "
                f"{takes} a row; name as many columns, in the order in which the model was trained with them"
            ]
        )
    given = _vector_defaults(spec, names, defaults)
    elements, problems = [], []
    for name, default in zip(names, given, strict=True):
        try:
            elements.append(_element(spec, name, schema, type, default, name in defaults))
        except BindingError as error:
            problems += [f"{where}: {problem}" for problem in error.problems]
    if problems:
        raise BindingError(problems)
    depth = max(len(shapes.row_sizes(spec)), 1)
    return InputBinding(spec, None, None, type, depth, vector=tuple(elements), coercion="gathered")


def _element(spec: TensorSpec, name: str, schema: pa.Schema, type: pa.DataType, default: Any, is_own: bool) -> Element:
    checked = None if default is None else typed_default(spec, default, type)
    if isinstance(checked, list):
        raise BindingError([f"source.defaults: column '{name}' takes one value, not a list"])
    if name not in schema.names:
        if not is_own:
            near = did_you_mean(name, schema.names)
            raise BindingError([f"no column '{name}' in the source{near} (columns: {', '.join(schema.names[:20])})"])
        return Element(name, None, "default in every row", checked)
    column_type = schema.field(name).type
    if is_list(column_type):
        raise BindingError([f"column '{name}' is {column_type}; a vector is gathered of columns with one value a row"])
    return Element(name, column_type, conversion(spec, name, column_type, type), checked)


def _vector_defaults(spec: TensorSpec, names: list[str], defaults: Mapping[str, Any]) -> list[Any]:
    """The default of each column of a vector, None where it has none."""
    whole = defaults.get(spec.name)
    each = shapes.flattened(whole) if isinstance(whole, list) else [whole] * len(names)
    if len(each) != len(names):
        raise BindingError(
            [
                f"source.defaults.{spec.name}: {len(each):,} values, and the vector has {len(names):,} columns; give "
                "one value for all of them, one for each, or defaults by the columns' names"
            ]
        )
    return [defaults.get(name, default) for name, default in zip(names, each, strict=True)]
