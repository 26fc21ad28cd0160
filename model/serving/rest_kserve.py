"""Serves the Open Inference Protocol (KServe's second, Triton's HTTP API), with its binary tensor data extension.

GET  /v2   /v2/health/live   /v2/health/ready
GET  /v2/models/{model}[/versions/{version}][/ready]
POST /v2/models/{model}[/versions/{version}]/infer

See https://github.com/kserve/open-inference-protocol and, for tensors in binary behind the JSON, Triton's
extension_binary_data. A NaN among JSON's values is written as the token NaN, as Triton does.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model.serving.errors import RequestError, Status, invalid
from model.serving.http import HttpAnswer, HttpProtocol, Render, guarded, prediction
from model.serving.limits import Limits, check_sizes
from model.serving.rest_tf import json_response
from model.serving.servable import Version
from model.serving.service import Query, Service
from model.serving.tensors import (
    Array,
    Arrays,
    check_shape,
    disagreement,
    from_json,
    has_rows,
    numpy_dtype,
    read_json,
    to_json,
)
from model.specs import TensorSpec

_PLACES = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
_HEADER_LENGTH = "inference-header-content-length"
_ID_CHARACTERS = 1024
_DATATYPES = {
    "bool": "BOOL",
    "string": "BYTES",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
}


def routes(service: Service) -> list[Route]:
    """Returns the routes of the protocol."""

    def server(request: Request) -> Response:
        return json_response({"name": "model.serve", "version": "2", "extensions": ["binary_tensor_data"]})

    def live(request: Request) -> Response:
        return json_response({"live": True})

    def ready(request: Request) -> Response:
        return json_response({"ready": True})

    def model_ready(request: Request) -> Response:
        return json_response({"name": _version(service, request).model_name, "ready": True})

    def metadata(request: Request) -> Response:
        return json_response(_metadata(service, request))

    def get(path: str, handler: Callable[[Request], Response]) -> Route:
        return Route(path, guarded(API, handler), methods=["GET"])

    found = [get("/v2", server), get("/v2/health/live", live), get("/v2/health/ready", ready)]
    for place in _PLACES:
        found += [get(place, metadata), get(place + "/ready", model_ready)]
        found.append(prediction(service, place + "/infer", API))
    return found


def _version(service: Service, request: Request) -> Version:
    """The version that a path names. Raises RequestError if there is none."""
    name, version = request.path_params["model"], request.path_params.get("version")
    if version is not None and not (version.isdecimal() and version.isascii() and len(version) <= 18):
        raise RequestError(Status.NOT_FOUND, f"model {name} has no version {version}; versions are numbers")
    return service.models.find(name, None if version is None else int(version))


def _metadata(service: Service, request: Request) -> dict[str, Any]:
    version = _version(service, request)
    signature = version.servable(service.options.signature).signature
    return {
        "name": version.model_name,
        "versions": [str(number) for number in service.models.store(version.model_name).versions],
        "platform": "tensorflow_savedmodel",
        "inputs": [_described(spec) for spec in signature.inputs],
        "outputs": [_described(spec) for spec in signature.outputs],
    }


def _described(spec: TensorSpec) -> dict[str, Any]:
    shape = [-1] if spec.shape is None else [-1 if size is None else size for size in spec.shape]
    return {"name": spec.name, "datatype": _DATATYPES.get(spec.dtype, spec.dtype.upper()), "shape": shape}


def _parse(service: Service, request: Request, body: bytes) -> tuple[Query, Render]:
    version = _version(service, request)
    servable = version.servable(service.options.signature)
    header, binary = _split(request.headers.get(_HEADER_LENGTH), body, service.limits)
    arrays = _inputs(header, binary, servable.signature.inputs, service.limits)
    wanted = _wanted(header, tuple(spec.name for spec in servable.signature.outputs))
    named: dict[str, Any] = {"model_name": version.model_name, "model_version": str(version.number)}
    if header.get("id") is not None:
        named["id"] = _id(header["id"])
    return Query(servable, arrays), lambda outputs: _render(outputs, wanted, named)


def _id(value: Any) -> str:
    """The request's id, which the answer repeats."""
    if isinstance(value, str) and len(value) <= _ID_CHARACTERS and value.isprintable():
        return value
    raise invalid(f"'id' is not a printable string of at most {_ID_CHARACTERS} characters")


def _split(length: str | None, body: bytes, limits: Limits) -> tuple[dict[str, Any], memoryview]:
    """The JSON and what is behind it."""
    if length is None:
        end = len(body)
    elif length.isdecimal() and length.isascii() and len(length) < 12 and int(length) <= len(body):
        end = int(length)
    else:
        raise invalid(f"header Inference-Header-Content-Length is not a length within the body: {length[:40]!r}")
    header = read_json(body[:end], limits)
    if not isinstance(header, dict):
        raise invalid("the request is not a JSON object")
    return header, memoryview(body)[end:]


def _inputs(header: Mapping[str, Any], binary: memoryview, specs: tuple[TensorSpec, ...], limits: Limits) -> Arrays:
    given = _list_of_objects(header.get("inputs"), "inputs")
    known = {spec.name: spec for spec in specs}
    arrays: Arrays = {}
    at = 0
    for tensor in given:
        name = tensor.get("name")
        spec = known.get(name) if isinstance(name, str) else None
        if spec is None or name in arrays:
            raise invalid(
                f"the model has no input {name!r}; it has {', '.join(known)}" if spec is None else _twice(spec)
            )
        shape = _shape(tensor, spec)
        size = _parameters(tensor).get("binary_data_size")
        if size is None:
            arrays[spec.name] = _from_data(tensor.get("data"), shape, spec)
        elif "data" in tensor or type(size) is not int or not 0 <= size <= len(binary) - at:
            raise invalid(f"input '{spec.name}': binary_data_size is not the size of data behind the JSON")
        else:
            if has_rows(spec):
                limits.check_rows(shape[0])
            arrays[spec.name] = _from_binary(binary[at : at + size], shape, spec)
            at += size
    if at != len(binary):
        raise invalid(f"{len(binary) - at} bytes behind the JSON belong to no input")
    missing = ", ".join(repr(name) for name in known if name not in arrays)
    if missing:
        raise invalid(f"input {missing} is missing")
    odd = disagreement(arrays, specs)
    if odd is not None:
        raise invalid(odd)
    return arrays


def _twice(spec: TensorSpec) -> str:
    return f"input '{spec.name}' is given twice"


def _shape(tensor: Mapping[str, Any], spec: TensorSpec) -> list[int]:
    datatype = _DATATYPES.get(spec.dtype)
    if tensor.get("datatype") != datatype:
        raise invalid(f"input '{spec.name}' has datatype {tensor.get('datatype')!r}; the model takes {datatype}")
    shape = tensor.get("shape")
    if type(shape) is not list or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise invalid(f"input '{spec.name}' has no shape, a list of sizes")
    check_sizes(shape, spec)
    check_shape(shape, spec)
    return shape


def _from_data(data: Any, shape: list[int], spec: TensorSpec) -> Array:
    if type(data) is not list:
        raise invalid(f"input '{spec.name}' has no data, a list of values")
    # Nested or flat: the shape says what it is.
    array = from_json(data, TensorSpec(spec.name, spec.dtype, None), texts=True)
    return _shaped(array, shape, spec)


def _from_binary(data: memoryview, shape: list[int], spec: TensorSpec) -> Array:
    if spec.dtype == "string":
        return _shaped(_strings(data, math.prod(shape), spec), shape, spec)
    dtype = numpy_dtype(spec.dtype)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise invalid(f"input '{spec.name}' has {len(data)} bytes; its shape {shape} takes another number")
    if spec.dtype == "bool":
        return np.frombuffer(data, np.uint8).reshape(shape).astype(np.bool_)
    return np.frombuffer(data, dtype).reshape(shape)


def _strings(data: memoryview, count: int, spec: TensorSpec) -> Array:
    """Each string is preceded by its length, so that one by one is the only way; one more than wanted is enough."""
    raw = bytes(data)
    values: list[bytes] = []
    at = 0
    while at + 4 <= len(raw) and len(values) <= count:
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        values.append(raw[at + 4 : end])
        at = end
    if len(values) > count:
        raise invalid(f"input '{spec.name}' has more than the {count:,} strings of its shape")
    if at != len(raw):
        raise invalid(f"input '{spec.name}': the last string is cut off")
    return np.array(values, object)


def _shaped(array: Array, shape: list[int], spec: TensorSpec) -> Array:
    if array.size != math.prod(shape) or (array.ndim > 1 and list(array.shape) != shape):
        raise invalid(f"input '{spec.name}' has values of shape {list(array.shape)}, and shape {shape}")
    return array.reshape(shape)


def _wanted(header: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, bool]:
    """The outputs that are asked for, and whether in binary."""
    binary = _parameters(header).get("binary_data_output", False) is True
    if not header.get("outputs"):
        return dict.fromkeys(known, binary)
    wanted: dict[str, bool] = {}
    for output in _list_of_objects(header["outputs"], "outputs"):
        name = output.get("name")
        if name not in known:
            raise invalid(f"the model has no output {name!r}; it has {', '.join(known)}")
        wanted[str(name)] = _parameters(output).get("binary_data", binary) is True
    return wanted


def _render(outputs: Arrays, wanted: Mapping[str, bool], named: Mapping[str, Any]) -> HttpAnswer:
    described = []
    behind = []
    for name, binary in wanted.items():
        array = outputs[name]
        dtype = "string" if array.dtype == object else array.dtype.name
        tensor: dict[str, Any] = {"name": name, "datatype": _DATATYPES.get(dtype), "shape": list(array.shape)}
        if binary:
            behind.append(_binary(array))
            tensor["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            tensor["data"] = orjson.Fragment(_data(array, name))
        described.append(tensor)
    body = orjson.dumps({**named, "outputs": described})
    if not behind:
        return HttpAnswer(body)
    headers = {_HEADER_LENGTH: str(len(body))}
    return HttpAnswer(b"".join([body, *behind]), "application/octet-stream", headers)


def _data(array: Array, name: str) -> bytes:
    flat = array.reshape(-1)
    if array.dtype == object:
        try:
            return orjson.dumps(list(map(bytes.decode, flat.tolist())))
        except UnicodeDecodeError as error:
            raise invalid(f"output '{name}' is not text; ask for it with binary_data") from error
    return to_json(flat, name)


def _binary(array: Array) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    values = array.ravel().tolist()
    lengths = np.fromiter(map(len, values), "<u4", len(values)).view("V4").tolist()
    return b"".join(itertools.chain.from_iterable(zip(lengths, values, strict=True)))


def _list_of_objects(value: Any, name: str) -> list[dict[str, Any]]:
    if type(value) is not list or set(map(type, value)) - {dict}:
        raise invalid(f"'{name}' is not a list of tensors")
    return value


def _parameters(value: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = value.get("parameters", {})
    if type(parameters) is not dict:
        raise invalid("'parameters' is not an object")
    return parameters


def _error(error: RequestError) -> bytes:
    return orjson.dumps({"error": str(error)})


API = HttpProtocol("kserve_v2", _parse, _error)
