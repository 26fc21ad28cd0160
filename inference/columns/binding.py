"""Decides which column feeds which input of the model, from the signature and a schema, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import pyarrow as pa

from inference.columns import shapes
from inference.columns.bound import Binding, ColumnMap, Element, InputBinding, arrow_type, column_names, did_you_mean
from inference.columns.coercion import depth_of, is_bytes, is_list, is_text, leaf_of
from inference.columns.conversions import checked_default, conversion, type_of
from inference.columns.vectors import bind_vector
from inference.errors import BindingError
from model.specs import ExampleFeature, Signature, TensorSpec

__all__ = [
    "Binding",
    "ColumnMap",
    "Element",
    "InputBinding",
    "arrow_type",
    "bind",
    "column_names",
    "did_you_mean",
    "wanted_inputs",
]

_HINTED = 20
"""Problems that get a hint at what was meant: finding one looks at all names."""


def bind(
    signature: Signature,
    schema: pa.Schema,
    columns: ColumnMap | None = None,
    defaults: Mapping[str, Any] | None = None,
    encodings: Mapping[str, str] | None = None,
) -> Binding:
    """Finds a column for each input of the signature.

    Args:
      signature: what the model takes.
      schema: the columns there are.
      columns: model input -> source column, for those with another name; or a list of columns, of which a vector is
        gathered.
      defaults: model input (or source column) -> value for rows that miss it. Of a vector, a column's own default
        counts; the input's is one value for all its columns, or a list with one for each.
      encodings: source column -> "base64", for text that stands for bytes.

    Raises:
      BindingError: with every problem found.
    """
    mapped, defaults = dict(columns or {}), dict(defaults or {})
    # Of a wide table, names are listed once.
    source = dict.fromkeys(schema.names)
    specs, optional, encode = wanted_inputs(signature, source, mapped)
    features = [feature.name for feature in signature.example_features]
    problems = _unknown_names([*[spec.name for spec in specs], *features], mapped, defaults, source)
    inputs = []
    for spec in specs:
        try:
            named = _named(spec, mapped, schema)
            if not isinstance(named, str):
                inputs.append(bind_vector(spec, named, schema, defaults))
            elif named in source:
                inputs.append(_bind_column(spec, named, schema, defaults, spec.name in optional, is_feature=encode))
            else:
                hinted = len(problems) < _HINTED
                inputs.append(_bind_default(spec, named, source, defaults, spec.name in optional, hinted))
        except BindingError as error:
            problems += error.problems
    inputs = [_with_encoding(bound, encodings or {}, problems) for bound in inputs]
    if problems:
        raise BindingError(problems)
    return Binding(signature, tuple(inputs), encode)


def _with_encoding(bound: InputBinding, encodings: Mapping[str, str], problems: list[str]) -> InputBinding:
    """Returns an input with the encodings of its columns, where they hold encoded bytes."""
    encoded = {each.column for each in bound.elements if each.column in encodings and _is_text(each.type)}
    wrong = [each.column for each in bound.elements if each.column in encodings] if not is_text(bound.type) else []
    problems += [
        f"source.encodings: column '{column}' feeds input '{bound.spec.name}', which takes {bound.spec.dtype}, not "
        "bytes"
        for column in wrong
    ]
    if not encoded:
        return bound
    if bound.column is not None:
        encoding = encodings[bound.column]
        return replace(bound, encoding=encoding, coercion=f"bytes in {encoding}")
    vector = [
        replace(each, encoding=encodings[each.column]) if each.column in encoded else each for each in bound.vector
    ]
    return replace(bound, vector=tuple(vector))


def _is_text(type: pa.DataType | None) -> bool:
    return type is not None and is_text(leaf_of(type))


def _named(spec: TensorSpec, columns: ColumnMap, schema: pa.Schema) -> str | list[str]:
    """The column of an input, or the columns of a vector. A vector of one column may be that column."""
    named = columns.get(spec.name, spec.name)
    if isinstance(named, str):
        return named
    if len(named) == 1 and (named[0] not in schema.names or is_list(schema.field(named[0]).type)):
        return named[0]
    return named[0] if len(named) == 1 and shapes.is_single(spec) else list(named)


def wanted_inputs(
    signature: Signature, source: Mapping[str, None], columns: ColumnMap
) -> tuple[list[TensorSpec], set[str], bool]:
    """Tells what columns are to be found for.

    Args:
      signature: what the model takes.
      source: the names of the columns there are.
      columns: as of `bind`.

    Returns:
      The inputs, names of those that may be missing, and whether they are features to be encoded as tf.Examples.

    Raises:
      BindingError: the model parses tf.Examples, and its graph does not tell their features.
    """
    name = signature.examples_input
    if name is None or any(column in source for column in column_names(columns.get(name, name))):
        return list(signature.inputs), set(), False
    if not signature.example_features or len(signature.inputs) != 1:
        raise BindingError(
            [
                f"signature '{signature.name}' parses serialized tf.Examples from input '{name}', and its graph "
                "does not tell their features; read TFRecord files, or map a column that holds them: "
                f'source.columns {{"{name}": ...}}'
            ]
        )
    specs = [_feature_spec(feature) for feature in signature.example_features]
    optional = {f.name for f in signature.example_features if f.has_default or f.kind != "dense"}
    return specs, optional, True


def _feature_spec(feature: ExampleFeature) -> TensorSpec:
    if feature.kind != "dense":
        return TensorSpec(feature.name, feature.dtype, (None, None), kind="ragged")
    shape = tuple(None if size < 0 else size for size in feature.shape)
    return TensorSpec(feature.name, feature.dtype, (None, *shape))


def _unknown_names(
    inputs: list[str], columns: ColumnMap, defaults: Mapping[str, Any], source: Mapping[str, None]
) -> list[str]:
    known = dict.fromkeys(inputs)
    unknown = [name for name in columns if name not in known]
    problems = [
        f"source.columns: '{name}' is not an input of the model{did_you_mean(name, known) if i < _HINTED else ''}"
        for i, name in enumerate(unknown)
    ]
    known.update(source)
    known.update((name, None) for named in columns.values() if not isinstance(named, str) for name in named)
    unknown = [name for name in defaults if name not in known]
    problems += [
        f"source.defaults: '{name}' is neither an input of the model nor a column"
        f"{did_you_mean(name, known) if i < _HINTED else ''}"
        for i, name in enumerate(unknown)
    ]
    return problems


def _bind_default(
    spec: TensorSpec, name: str, source: Mapping[str, None], defaults: Mapping[str, Any], optional: bool, hinted: bool
) -> InputBinding:
    """An input that no column feeds."""
    type = type_of(spec)
    default = defaults.get(spec.name, defaults.get(name))
    if default is None and not optional:
        raise BindingError([_no_column(spec, name, source, hinted)])
    depth = 0 if shapes.is_single(spec) else len(shapes.row_sizes(spec))
    checked = None if default is None else checked_default(spec, default, type, depth)
    coercion = "left out of every row" if default is None else "default in every row"
    return InputBinding(spec, None, None, type, depth, checked, coercion, optional)


def _bind_column(
    spec: TensorSpec, name: str, schema: pa.Schema, defaults: Mapping[str, Any], optional: bool, *, is_feature: bool
) -> InputBinding:
    type = type_of(spec)
    default = defaults.get(spec.name, defaults.get(name))
    column_type = schema.field(name).type
    coercion = conversion(spec, name, column_type, type)
    depth = _depth(spec, name, column_type, is_feature)
    checked = None if default is None else checked_default(spec, default, type, depth)
    own = depth_of(column_type)
    takes_single = _takes_single(spec, is_feature)
    if own == 0 < depth and not pa.types.is_null(column_type):
        kinds = ["a list of one value"] * takes_single + ["a list in JSON"] * is_text(column_type)
        coercion = f"{' or '.join(kinds)}; {coercion}"
    elif 0 < own < depth:
        coercion = f"reshaped to {shapes.in_words(spec)}; {coercion}"
    optional = optional or spec.kind != "dense"
    return InputBinding(spec, name, column_type, type, depth, checked, coercion, optional, takes_single)


def _no_column(spec: TensorSpec, name: str, source: Mapping[str, None], hinted: bool) -> str:
    said = f"input '{spec.name}'" if name == spec.name else f"input '{spec.name}' (source.columns: '{name}')"
    hint = did_you_mean(name, source) if hinted else ""
    if shapes.is_single(spec):
        example = f'{{"{spec.name}": "<column>"}}'
    else:
        said += f" of shape {shapes.in_words(spec)}"
        example = f'{{"{spec.name}": "<column of lists>"}} or {{"{spec.name}": ["<column>", "<column>", ...]}}'
    fix = (
        f"map it with source.columns {example}, or give a value for every row with "
        f'source.defaults {{"{spec.name}": ...}}'
    )
    return f"{said}: no column '{name}' in the source{hint}; {fix} (columns: {', '.join(islice(source, 20))})"


def _takes_single(spec: TensorSpec, is_feature: bool) -> bool:
    sizes = shapes.row_sizes(spec)
    return len(sizes) == 1 and (spec.kind != "dense" or (is_feature and sizes[0] is None))


def _depth(spec: TensorSpec, column: str, type: pa.DataType, is_feature: bool) -> int:
    """How many lists a row's value is nested in; checks that the column can give that."""
    depth = depth_of(type)
    if spec.shape is None:
        return depth
    sizes = shapes.row_sizes(spec)
    wanted = len(sizes)
    if depth == 0 and shapes.is_single(spec):
        return 0
    if depth == wanted or pa.types.is_null(type):
        return wanted
    if wanted == 0:
        # A list of one value is that value; whether all are shows when they come.
        return 0
    is_json = is_text(type) and not is_bytes(leaf_of(type))
    if depth == 0 and (is_json or _takes_single(spec, is_feature)):
        return wanted
    if depth == 1 and spec.kind == "dense" and shapes.can_be_flat(spec):
        return wanted
    what = "text" if is_text(type) else str(type)
    gather = f'; a vector of several columns is source.columns {{"{spec.name}": ["{column}", ...]}}'
    raise BindingError(
        [
            f"column '{column}' is {what}, and input '{spec.name}' has shape {shapes.in_words(spec)}: it takes "
            + ("a list a row" if wanted == 1 else f"lists nested {wanted} deep a row")
            + (gather if depth == 0 and shapes.can_be_flat(spec) else "")
        ]
    )
