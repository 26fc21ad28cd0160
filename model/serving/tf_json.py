"""Writes the JSON of TensorFlow Serving's predictions, which AI Platform, Vertex AI and KServe's first version share.

A request has the inputs as rows ("instances") or as columns ("inputs"); the answer has the outputs as rows
("predictions") or as columns ("outputs"). A NaN or an infinity is written as such a token, as TensorFlow Serving
does, though it is not JSON; rows may also have these as text, as KServe's clients send them.
See https://www.tensorflow.org/tfx/serving/api_rest.
"""

from collections.abc import Mapping
from itertools import islice
from operator import itemgetter
from typing import Any

import orjson

from model.serving.errors import invalid
from model.serving.limits import Limits
from model.serving.servable import Servable, rows_of
from model.serving.tensors import Array, Arrays, from_json, has_rows, read_json, rows_to_json, to_json
from model.specs import TensorSpec

_ROWS = "instances"
_COLUMNS = "inputs"


def read_request(body: bytes, limits: Limits) -> dict[str, Any]:
    """Reads a request. Raises RequestError if it is not a JSON object within the limits."""
    request = read_json(body, limits)
    if not isinstance(request, dict):
        raise invalid("the body is not a JSON object")
    return request


def signature_name(request: Mapping[str, Any], default: str) -> str:
    """Returns the signature that a request names."""
    name = request.get("signature_name", default)
    if not isinstance(name, str):
        raise invalid("'signature_name' is not a string")
    return name or default


def read_inputs(
    request: Mapping[str, Any], servable: Servable, limits: Limits, columns: bool = True
) -> tuple[Arrays, bool]:
    """Returns the inputs in a request.

    Args:
      request: the request.
      servable: what they are for.
      limits: what a request may hold.
      columns: whether the protocol has them as columns, too.

    Returns:
      The inputs, and whether they were rows.

    Raises:
      RequestError: they are missing, too many, or not what the signature takes.
    """
    specs = {spec.name: spec for spec in servable.signature.inputs}
    if _ROWS in request and not (columns and _COLUMNS in request):
        return _rows(request[_ROWS], specs, limits), True
    if columns and _COLUMNS in request and _ROWS not in request:
        return _columns(request[_COLUMNS], specs, limits), False
    wanted = f"one of '{_ROWS}' and '{_COLUMNS}'" if columns else f"'{_ROWS}'"
    raise invalid(f"the request must have {wanted}")


def write_rows(outputs: Arrays) -> bytes:
    """Returns the outputs as rows: a list of values, or of objects if there are several outputs."""
    if len(rows := rows_of(outputs)) != 1 or -1 in rows:
        raise invalid("the outputs have no common number of rows; ask for columns, with 'inputs'")
    if len(outputs) > 1:
        return rows_to_json(outputs)
    ((name, array),) = outputs.items()
    return to_json(array, name)


def write_columns(outputs: Arrays) -> bytes:
    """Returns the outputs as columns: an object of lists, or one list if there is one output."""
    texts = {name: to_json(array, name) for name, array in outputs.items()}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return b"{" + b",".join(orjson.dumps(name) + b":" + text for name, text in texts.items()) + b"}"


def _rows(instances: Any, specs: Mapping[str, TensorSpec], limits: Limits) -> Arrays:
    if type(instances) is not list:
        raise invalid("'instances' is not a list")
    if not instances:
        raise invalid("'instances' is empty")
    limits.check_rows(len(instances))
    if type(instances[0]) is not dict or instances[0].keys() == {"b64"} != specs.keys():
        return {spec.name: from_json(instances, spec, texts=True) for spec in [_only(specs)]}
    if set(map(type, instances)) != {dict} or set(map(len, instances)) != {len(specs)}:
        raise invalid(_why_not_rows(instances, specs))
    try:
        columns = {name: list(map(itemgetter(name), instances)) for name in specs}
    except KeyError as error:
        raise invalid(_why_not_rows(instances, specs)) from error
    return {name: from_json(columns[name], spec, texts=True) for name, spec in specs.items()}


def _why_not_rows(instances: list[Any], specs: Mapping[str, TensorSpec]) -> str:
    for row, instance in enumerate(instances):
        if type(instance) is not dict:
            return f"'instances', row {row}, is not an object as the first one"
        if instance.keys() != specs.keys():
            return f"'instances', row {row}: {_mismatch(instance, specs)}"
    raise AssertionError("every row has every input")


def _columns(inputs: Any, specs: Mapping[str, TensorSpec], limits: Limits) -> Arrays:
    if type(inputs) is not dict or inputs.keys() == {"b64"} != specs.keys():
        inputs = {_only(specs).name: inputs}
    if inputs.keys() != specs.keys():
        raise invalid(f"'inputs': {_mismatch(inputs, specs)}")
    for name, spec in specs.items():
        if has_rows(spec) and type(inputs[name]) is list:
            limits.check_rows(len(inputs[name]))
    arrays: dict[str, Array] = {name: from_json(inputs[name], spec) for name, spec in specs.items()}
    return arrays


def _only(specs: Mapping[str, TensorSpec]) -> TensorSpec:
    if len(specs) != 1:
        raise invalid(f"values without a name are for a model with one input; this one has {', '.join(specs)}")
    return next(iter(specs.values()))


def _mismatch(given: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> str:
    missing = ", ".join(repr(name) for name in specs if name not in given)
    unknown = ", ".join(repr(name) for name in islice((name for name in given if name not in specs), 10))
    parts = [f"input {missing} is missing"] if missing else []
    parts += [f"the model has no input {unknown}"] if unknown else []
    return "; ".join(parts)
