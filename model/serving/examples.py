"""Serializes the tf.Examples of classify and regress requests, each with the context that all of them share.

In JSON a feature is a value or a list of values: a whole number or true and false (int64), a number with a fraction
(float), a string or `{"b64": "..."}` (bytes).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from model.runtime.messages import example_pb2
from model.serving.errors import invalid
from model.serving.limits import Limits
from model.serving.tensors import Array, from_base64

_EXAMPLES = "examples"
_CONTEXT = "context"
_FIELDS: dict[type, tuple[str, str]] = {
    bool: ("int64_list", "int64"),
    int: ("int64_list", "int64"),
    float: ("float_list", "float"),
    str: ("bytes_list", "bytes"),
    dict: ("bytes_list", "bytes"),
}
_JSON_TYPES = {type(None): "Null", list: "Array", dict: "Object"}
_INT64 = range(-(2**63), 2**63)
_MAX_FLOAT = float(np.finfo(np.float32).max)


def examples_in_json(request: Mapping[str, Any], limits: Limits) -> Array:
    """Makes tf.Examples of a JSON request.

    Args:
      request: the request, with "examples" and perhaps "context".
      limits: what a request may hold.

    Returns:
      A vector of serialized tf.Examples.

    Raises:
      RequestError: there are none, or too many, or a feature has no type or several.
    """
    context = b""
    if _CONTEXT in request:
        context = _serialized(request[_CONTEXT], f"'{_CONTEXT}'")
    examples = request.get(_EXAMPLES)
    if type(examples) is not list:
        given = "is not a list" if _EXAMPLES in request else "is expected and was not found"
        raise invalid(f"'{_EXAMPLES}' {given}; it has one object of features for each example")
    if not examples:
        raise invalid(f"'{_EXAMPLES}' is empty")
    limits.check_rows(len(examples))
    return _joined(
        context, [_serialized(example, f"'{_EXAMPLES}', item {at}") for at, example in enumerate(examples)], limits
    )


def examples_in_message(message: Any, limits: Limits) -> Array:
    """Makes a vector of serialized tf.Examples of an Input message. Raises RequestError as `examples_in_json` does."""
    kind = message.WhichOneof("kind")
    if kind is None or not getattr(message, kind).examples:
        raise invalid("Input is empty.")
    found = getattr(message, kind)
    limits.check_rows(len(found.examples))
    context = found.context.SerializeToString() if kind == "example_list_with_context" else b""
    return _joined(context, [example.SerializeToString() for example in found.examples], limits)


def _joined(context: bytes, examples: list[bytes], limits: Limits) -> Array:
    limits.check_input_bytes(len(context) * len(examples) + sum(map(len, examples)))
    # Messages one behind the other are read as one, with the features of both.
    return np.array([context + example for example in examples], object)


def _serialized(features: Any, where: str) -> bytes:
    if type(features) is not dict:
        raise invalid(f"{where} is not an object of features")
    example = example_pb2.Example()
    for name, given in features.items():
        _utf8(name, f"{where}: a feature's name")
        values = given if type(given) is list else [given]
        _add(example.features.feature[name], values, f"{where}: feature {name!r}")
    data: bytes = example.SerializeToString()
    return data


def _add(feature: Any, values: list[Any], where: str) -> None:
    kinds = {_FIELDS.get(type(value)) for value in values}
    if None in kinds:
        other = next(value for value in values if type(value) not in _FIELDS)
        raise invalid(f"{where} has element with unexpected JSON type: {_JSON_TYPES[type(other)]}")
    if len(kinds) > 1:
        types = ", ".join(sorted(kind[1] for kind in kinds if kind))
        raise invalid(f"{where} has elements of several types: {types}; write all numbers with a point, or none")
    if not values:
        return
    field, name = _FIELDS[type(values[0])]
    if name == "bytes":
        values = [from_base64(value, where) if type(value) is dict else _utf8(value, where) for value in values]
    elif name == "int64" and not all(value in _INT64 for value in values):
        raise invalid(f"{where} has a value beyond int64")
    elif name == "float" and any(math.isfinite(value) and abs(value) > _MAX_FLOAT for value in values):
        raise invalid(f"{where} has a value beyond float32")
    getattr(feature, field).value.extend(values)


def _utf8(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise invalid(f"{where} has half of a surrogate pair, which is no text") from error
