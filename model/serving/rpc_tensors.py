"""Converts the tensors of gRPC's messages to arrays, and back."""

import math
from itertools import islice
from typing import Any

import numpy as np

from model.runtime.messages import tensor_pb2
from model.saved_model_proto import dtype_number
from model.serving.errors import invalid
from model.serving.limits import MAX_RANK, Limits, check_sizes, string_bytes
from model.serving.servable import Servable
from model.serving.tensors import Array, Arrays, has_rows, numpy_dtype
from model.specs import TensorSpec

_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "string": "string_val",
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), "int_val"),
}


def wanted_outputs(request: Any, servable: Servable) -> list[str]:
    """Returns the outputs that a PredictRequest asks for. Raises RequestError if there is no such output."""
    known = [spec.name for spec in servable.signature.outputs]
    for name in request.output_filter:
        if name not in known:
            raise invalid(f"the model has no output {name!r}; it has {', '.join(known)}")
    return list(dict.fromkeys(request.output_filter)) or known


def input_arrays(request: Any, servable: Servable, limits: Limits) -> Arrays:
    """Returns the inputs of a PredictRequest.

    Raises:
      RequestError: they are missing, too many, too large, or of another type than the signature's.
    """
    specs = {spec.name: spec for spec in servable.signature.inputs}
    missing = ", ".join(repr(name) for name in specs if name not in request.inputs)
    unknown = ", ".join(repr(name) for name in islice((name for name in request.inputs if name not in specs), 10))
    if missing or unknown:
        parts = [f"input {missing} is missing"] if missing else []
        parts += [f"the model has no input {unknown}"] if unknown else []
        raise invalid("; ".join(parts))
    # A tensor may say a single value for a shape of any size: all sizes are checked before any array is made.
    shapes = {name: _shape(request.inputs[name], spec) for name, spec in specs.items()}
    for name, spec in specs.items():
        if has_rows(spec) and shapes[name]:
            limits.check_rows(shapes[name][0])
    limits.check_input_bytes(sum(_bytes(request.inputs[name], shapes[name], spec) for name, spec in specs.items()))
    return {name: _array(request.inputs[name], shapes[name], spec) for name, spec in specs.items()}


def _shape(tensor: Any, spec: TensorSpec) -> list[int]:
    if tensor.dtype != dtype_number(spec.dtype):
        given = tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number.get(tensor.dtype)
        raise invalid(
            f"input '{spec.name}' has type {given.name if given else tensor.dtype}; the model takes {spec.dtype}"
        )
    if tensor.tensor_shape.unknown_rank:
        raise invalid(f"input '{spec.name}' has a shape of unknown rank; give the sizes")
    # One more than allowed is refused as all of them would be.
    shape = [dim.size for dim in islice(tensor.tensor_shape.dim, MAX_RANK + 1)]
    check_sizes(shape, spec)
    return shape


def _bytes(tensor: Any, shape: list[int], spec: TensorSpec) -> int:
    if spec.dtype == "string":
        return string_bytes(shape, tensor.string_val)
    return math.prod(shape) * numpy_dtype(spec.dtype).itemsize


def _array(tensor: Any, shape: list[int], spec: TensorSpec) -> Array:
    dtype = numpy_dtype(spec.dtype)
    if 0 in shape:
        return np.zeros(shape, dtype)
    try:
        return _filled(_values(tensor, spec.dtype, dtype), math.prod(shape)).reshape(shape)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise invalid(f"input '{spec.name}' has values that do not make its shape {shape}") from error


def _values(tensor: Any, name: str, dtype: np.dtype[Any]) -> Array:
    """The values that a TensorProto has, in whatever field: fewer than its shape says, if the last ones are equal."""
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, dtype).copy()
    if name == "string":
        return np.array([*tensor.string_val], object)
    if name in ("float16", "bfloat16"):
        return np.fromiter(tensor.half_val, np.uint16).view(dtype)
    if name in ("complex64", "complex128"):
        parts = np.fromiter(tensor.scomplex_val if name == "complex64" else tensor.dcomplex_val, np.float64)
        return (parts[::2] + 1j * parts[1::2]).astype(dtype)
    return np.fromiter(getattr(tensor, _FIELDS[name]), dtype)


def _filled(values: Array, count: int) -> Array:
    if len(values) in (0, count):
        empty = b"" if values.dtype == object else 0
        return values if len(values) else np.full(count, empty, values.dtype)
    if len(values) > count:
        raise ValueError(f"{len(values)} values for {count}")
    return np.concatenate([values, np.repeat(values[-1:], count - len(values))])


def output_tensor(array: Array) -> Any:
    """Returns an output as a TensorProto, in the field of its type, as TensorFlow Serving answers."""
    name = "string" if array.dtype == object else array.dtype.name
    field = _FIELDS.get(name)
    tensor = tensor_pb2.TensorProto(dtype=dtype_number(name))
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if field is None:
        tensor.tensor_content = array.tobytes()
    else:
        getattr(tensor, field).extend(array.ravel().tolist())
    return tensor
