"""Which column feeds which input of the model, decided from the signature and a schema before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from inference.coercion import coerce, depth_of, describe, is_text, leaf_of
from inference.errors import BindingError
from model.specs import ExampleFeature, Signature, TensorSpec

_HINTED = 20
"""Problems that get a hint at what was meant: finding one looks at all names."""

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
    """The Arrow type that holds values of a TensorFlow dtype, or None if there is none (complex, resource)."""
    return _TYPES.get(dtype)


@dataclass(frozen=True)
class InputBinding:
    """One input of the model and where its values come from.

    Attributes:
      spec: the input (or the feature of a tf.Example, as an input).
      column: the source column; None if every row takes the default.
      column_type: the column's type; None without a column.
      type: what the values inside all lists are coerced to.
      depth: how many lists a row's value is nested in.
      default: what a missing value becomes; None if missing values are refused.
      coercion: how the column becomes the input, in words.
      optional: a missing value may stay missing (features of tf.Examples that the model has defaults for).
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
    encoding: str = ""


@dataclass(frozen=True)
class Binding:
    """How batches of one schema are fed to a signature.

    Attributes:
      signature: the signature.
      inputs: one for each input; for a tf.Example input that is to be encoded, one for each feature.
      encode_examples: whether the inputs are features to be encoded as tf.Examples.
    """

    signature: Signature
    inputs: tuple[InputBinding, ...]
    encode_examples: bool = False


def bind(
    signature: Signature,
    schema: pa.Schema,
    columns: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    encodings: Mapping[str, str] | None = None,
) -> Binding:
    """Finds a column for each input of the signature.

    Args:
      signature: what the model takes.
      schema: the columns there are.
      columns: model input -> source column, for those with another name.
      defaults: model input (or source column) -> value for rows that miss it.
      encodings: source column -> "base64", for text that stands for bytes.

    Raises:
      BindingError: with every problem found.
    """
    columns, defaults = dict(columns or {}), dict(defaults or {})
    # Of a wide table, names are listed once.
    source = dict.fromkeys(schema.names)
    specs, optional, encode = _wanted(signature, source, columns)
    features = [feature.name for feature in signature.example_features]
    problems = _unknown_names([*[spec.name for spec in specs], *features], columns, defaults, source)
    inputs = []
    for spec in specs:
        try:
            if columns.get(spec.name, spec.name) in source:
                inputs.append(_bind_column(spec, schema, columns, defaults, spec.name in optional))
            else:
                hinted = len(problems) < _HINTED
                inputs.append(_bind_default(spec, source, columns, defaults, spec.name in optional, hinted))
        except BindingError as error:
            problems += error.problems
    inputs = [_with_encoding(bound, encodings or {}, problems) for bound in inputs]
    if problems:
        raise BindingError(problems)
    return Binding(signature, tuple(inputs), encode)


def _with_encoding(bound: InputBinding, encodings: Mapping[str, str], problems: list[str]) -> InputBinding:
    """An input whose column holds encoded bytes, if it does."""
    column = bound.column
    if not isinstance(column, str) or column not in encodings or bound.column_type is None:
        return bound
    encoding = encodings[column]
    if not is_text(bound.type):
        problems.append(
            f"source.encodings: column '{column}' feeds input '{bound.spec.name}', which takes {bound.spec.dtype}, "
            "not bytes"
        )
    elif not is_text(leaf_of(bound.column_type)):
        return bound
    return replace(bound, encoding=encoding, coercion=f"bytes in {encoding}")


def _wanted(
    signature: Signature, source: Mapping[str, None], columns: Mapping[str, str]
) -> tuple[list[TensorSpec], set[str], bool]:
    """The specs to find columns for, which of them may be missing, and whether they are tf.Example features."""
    name = signature.examples_input
    if name is None or columns.get(name, name) in source:
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
    inputs: list[str], columns: Mapping[str, str], defaults: Mapping[str, Any], source: Mapping[str, None]
) -> list[str]:
    known = dict.fromkeys(inputs)
    unknown = [name for name in columns if name not in known]
    problems = [
        f"source.columns: '{name}' is not an input of the model{did_you_mean(name, known) if i < _HINTED else ''}"
        for i, name in enumerate(unknown)
    ]
    known.update(source)
    unknown = [name for name in defaults if name not in known]
    problems += [
        f"source.defaults: '{name}' is neither an input of the model nor a column"
        f"{did_you_mean(name, known) if i < _HINTED else ''}"
        for i, name in enumerate(unknown)
    ]
    return problems


def _type_of(spec: TensorSpec) -> pa.DataType:
    """The type of an input's values. Raises BindingError if no column can feed it."""
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


def _bind_default(
    spec: TensorSpec,
    source: Mapping[str, None],
    columns: Mapping[str, str],
    defaults: Mapping[str, Any],
    optional: bool,
    hinted: bool,
) -> InputBinding:
    """An input that no column feeds."""
    type = _type_of(spec)
    name = columns.get(spec.name, spec.name)
    default = defaults.get(spec.name, defaults.get(name))
    if default is None and not optional:
        raise BindingError([_no_column(spec, name, source, hinted)])
    depth = len(spec.shape) - 1 if spec.shape else 0
    checked = None if default is None else _default(spec, default, type)
    return InputBinding(spec, None, None, type, depth, checked, "default in every row", optional)


def _bind_column(
    spec: TensorSpec,
    schema: pa.Schema,
    columns: Mapping[str, str],
    defaults: Mapping[str, Any],
    optional: bool,
) -> InputBinding:
    type = _type_of(spec)
    name = columns.get(spec.name, spec.name)
    default = defaults.get(spec.name, defaults.get(name))
    column_type = schema.field(name).type
    coercion = describe(column_type, type)
    if coercion is None:
        raise BindingError(
            [
                f"column '{name}' is {column_type}, and input '{spec.name}' takes {spec.dtype}: there is no "
                "conversion that loses nothing; convert it in the source, or map another column in source.columns"
            ]
        )
    depth = _depth(spec, name, column_type)
    checked = None if default is None else _default(spec, default, type)
    return InputBinding(spec, name, column_type, type, depth, checked, coercion, optional)


def _no_column(spec: TensorSpec, name: str, source: Mapping[str, None], hinted: bool) -> str:
    said = f"input '{spec.name}'" if name == spec.name else f"input '{spec.name}' (source.columns: '{name}')"
    hint = did_you_mean(name, source) if hinted else ""
    fix = (
        f'map it with source.columns {{"{spec.name}": "<column>"}}, or give a value for every row with '
        f'source.defaults {{"{spec.name}": ...}}'
    )
    return f"{said}: no column '{name}' in the source{hint}; {fix} (columns: {', '.join(islice(source, 20))})"


def _depth(spec: TensorSpec, column: str, type: pa.DataType) -> int:
    """How many lists a row's value is nested in; checks that it suits the shape."""
    depth = depth_of(type)
    if spec.shape is None:
        return depth
    wanted = len(spec.shape) - 1
    if depth == wanted or pa.types.is_null(type):
        return wanted
    if depth == 0 and all(size == 1 for size in spec.shape[1:]):
        return 0
    if wanted == 0 and depth:
        # A list of one value is that value; whether all are shows when they come.
        return 0
    shape = ", ".join("n" if size is None else str(size) for size in ("batch", *spec.shape[1:]))
    what = "text" if is_text(type) else str(type)
    raise BindingError(
        [
            f"column '{column}' is {what}, and input '{spec.name}' has shape [{shape}]: it takes "
            + ("a list" if wanted == 1 else f"lists nested {wanted} deep" if wanted else "a single value")
            + " a row"
        ]
    )


def _default(spec: TensorSpec, value: Any, type: pa.DataType) -> Any:
    """The default as a value of the input's type; "NaN" stands for a float that is not a number."""
    try:
        if isinstance(value, list):
            return [_default(spec, item, type) for item in value]
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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if a known name is near, else nothing."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return f"; did you mean '{lowered[near[0]]}'?" if near else ""
