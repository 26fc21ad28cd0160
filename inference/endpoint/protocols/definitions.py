"""Finds the signature in what a TensorFlow server says about a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from inference.columns.bound import did_you_mean
from inference.errors import EndpointConfigError, ResponseError
from model.specs import Signature, TensorSpec

_RENAMED = {"float": "float32", "double": "float64", "half": "float16"}
_OF_EXAMPLES = ("tensorflow/serving/classify", "tensorflow/serving/regress")
_SIDES = ("inputs", "outputs")


def dtype_named(name: str) -> str:
    """TensorFlow's name of the values of an enum's name: DT_FLOAT is "float32".

    >>> dtype_named("DT_FLOAT"), dtype_named("DT_STRING_REF")
    ('float32', 'string')
    """
    plain = name.removeprefix("DT_").removesuffix("_REF").lower()
    return _RENAMED.get(plain, plain)


def choose(signatures: Mapping[str, Any], name: str) -> Any:
    """Returns the signature of a name. Raises EndpointConfigError if the model has none."""
    if name in signatures:
        return signatures[name]
    known = [key for key in signatures if not key.startswith("__saved_model_init")]
    there = ", ".join(map(repr, sorted(known)[:20])) or "none"
    raise EndpointConfigError(f"the model has no signature '{name}'{did_you_mean(name, known)} (signatures: {there})")


def made_of(name: str, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec], method_name: str = "") -> Signature:
    """Returns a signature of these inputs and outputs, sorted.

    The only input of a classify or regress signature takes serialized tf.Examples. It is asked with predict, which
    TensorFlow Serving does for every method: the outputs, such as classes and scores, are columns then.
    """
    inputs, outputs = (tuple(sorted(specs, key=lambda spec: spec.name)) for specs in (inputs, outputs))
    takes_examples = method_name in _OF_EXAMPLES and [spec.dtype for spec in inputs] == ["string"]
    return Signature(name, inputs, outputs, method_name, inputs[0].name if takes_examples else None)


def from_json(name: str, definition: Any) -> Signature:
    """Returns the signature in a SignatureDef as JSON, where int64 are text.

    Raises:
      ResponseError: it is not one.
    """
    try:
        inputs, outputs = ([_spec(key, info) for key, info in definition[side].items()] for side in _SIDES)
        return made_of(name, inputs, outputs, str(definition.get("method_name", definition.get("methodName", ""))))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResponseError(f"the model's metadata: signature '{name}' cannot be read ({error!r})"[:500]) from None


def _spec(name: str, info: Any) -> TensorSpec:
    dtype = dtype_named(info["dtype"])
    shape = info.get("tensor_shape", info.get("tensorShape", {}))
    sizes: tuple[int | None, ...] | None = None
    if not shape.get("unknown_rank", shape.get("unknownRank", False)):
        dims = [int(dim.get("size", 0)) for dim in shape.get("dim", [])]
        sizes = tuple(None if size < 0 else size for size in dims)
    return TensorSpec(name, dtype, sizes, "sparse" if "coo_sparse" in info or "cooSparse" in info else "dense")
