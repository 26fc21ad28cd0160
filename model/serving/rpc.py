"""TensorFlow Serving's gRPC services: Predict, GetModelMetadata, GetModelStatus."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message

from model.runtime.messages import get_model_metadata_pb2 as metadata_pb2
from model.runtime.messages import get_model_status_pb2 as status_pb2
from model.runtime.messages import predict_pb2, tensor_pb2
from model.saved_model_proto import dtype_number
from model.serving.errors import RequestError, invalid, note
from model.serving.limits import MAX_RANK, Limits, check_sizes, string_bytes
from model.serving.service import Query, Service
from model.serving.store import Servable, Version
from model.serving.tensors import Array, Arrays, check_shape, has_rows, numpy_dtype
from model.specs import TensorSpec

PROTOCOL = "tf_serving_grpc"

_STREAMS_OF_CONNECTION = 128
_PARSED_FASTER = 16  # than its values become arrays, about
_PING_SECONDS = 30
_ANSWER_PING_SECONDS = 10
_OLDEST_CONNECTION_SECONDS = 600

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
_SPOILED = {
    "reset": (grpc.StatusCode.UNAVAILABLE, "the connection was reset, on purpose"),
    "html": (grpc.StatusCode.UNKNOWN, "a page of HTML in place of an answer, on purpose"),
}

Context = Any
Handler = Callable[[Any, Context], Awaitable[Any]]


def create_server(service: Service) -> grpc.aio.Server:
    """A server of the two services, without a port yet. Called in the event loop that runs it."""
    options = service.options
    request_ms = int(options.request_s * 1000)
    server = grpc.aio.server(
        maximum_concurrent_rpcs=options.max_connections,
        options=[
            ("grpc.max_receive_message_length", options.max_body_bytes),
            ("grpc.max_send_message_length", options.max_body_bytes),
            # Two servers on one port would each get some of the requests.
            ("grpc.so_reuseport", 0),
            ("grpc.max_allowed_incoming_connections", options.max_connections),
            ("grpc.max_concurrent_streams", _STREAMS_OF_CONNECTION),
            ("grpc.server_handshake_timeout_ms", request_ms),
            ("grpc.max_connection_idle_ms", int(options.idle_s * 1000)),
            # A message that drips keeps its connection from being idle. Clients go over to a new one by themselves.
            ("grpc.max_connection_age_ms", _OLDEST_CONNECTION_SECONDS * 1000),
            ("grpc.max_connection_age_grace_ms", request_ms),
            ("grpc.keepalive_time_ms", _PING_SECONDS * 1000),
            ("grpc.keepalive_timeout_ms", _ANSWER_PING_SECONDS * 1000),
        ],
    )
    rpc = _Rpc(service)
    predictions = {
        "Predict": _method(service, rpc.predict, predict_pb2.PredictRequest),
        "GetModelMetadata": _method(service, rpc.metadata, metadata_pb2.GetModelMetadataRequest),
    }
    states = {"GetModelStatus": _method(service, rpc.status, status_pb2.GetModelStatusRequest)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", predictions),
            grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", states),
        )
    )
    return server


class _Rpc:
    """The methods."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def predict(self, request: Any, context: Context) -> Any:
        """PredictionService.Predict."""
        with self._service.counted(PROTOCOL) as outcome:
            try:
                fault = await self._service.admit()
                if fault in _SPOILED:
                    outcome.code = _SPOILED[fault][0].name
                    await context.abort(*_SPOILED[fault])
                response = await self._predicted(request, fault)
            except RequestError as error:
                code = _code(error)
                outcome.code = code.name
                await context.abort(code, str(error))
            except asyncio.CancelledError:
                outcome.code = "CANCELLED"
                raise
            outcome.code = "OK"
            return response

    async def _predicted(self, request: Any, fault: str | None) -> Any:
        service = self._service
        spec = request.model_spec
        version = self._version(spec)
        servable = version.servable(spec.signature_name or service.options.signature)

        def read() -> tuple[list[str], Arrays]:
            return _outputs(request, servable), _arrays(request, servable, service.limits)

        wanted, arrays = await service.apart(request.ByteSize(), read)
        outputs = await service.predict(Query(servable, arrays), fault)

        def respond() -> Any:
            response = predict_pb2.PredictResponse()
            response.model_spec.name = service.store.name
            response.model_spec.version.value = version.number
            response.model_spec.signature_name = servable.signature.name
            for name in wanted:
                response.outputs[name].CopyFrom(_proto(outputs[name]))
            data = response.SerializeToString()
            return data[: len(data) // 2] if fault == "truncated" else data

        return await service.apart(sum(array.nbytes for array in outputs.values()), respond)

    async def metadata(self, request: Any, context: Context) -> Any:
        """PredictionService.GetModelMetadata."""
        try:
            version = self._version(request.model_spec)
            if list(request.metadata_field) != ["signature_def"]:
                raise invalid("metadata_field must be signature_def, and nothing else")
        except RequestError as error:
            await context.abort(_code(error), str(error))
        response = metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self._service.store.name
        response.model_spec.version.value = version.number
        response.metadata["signature_def"].Pack(metadata_pb2.SignatureDefMap(signature_def=version.definitions))
        return response

    async def status(self, request: Any, context: Context) -> Any:
        """ModelService.GetModelStatus."""
        store = self._service.store
        spec = request.model_spec
        response = status_pb2.GetModelStatusResponse()
        try:
            version = self._version(spec)
        except RequestError as error:
            await context.abort(_code(error), str(error))
        chosen = spec.WhichOneof("version_choice") is not None
        states: dict[int, str | None] = dict.fromkeys(store.versions)
        states = {version.number: None} if chosen else {**store.failures, **states}
        for number, failure in sorted(states.items(), reverse=True):
            state = response.model_version_status.add(version=number)
            state.state = state.END if failure else state.AVAILABLE
            state.status.error_code = grpc.StatusCode.UNKNOWN.value[0] if failure else 0
            state.status.error_message = failure or ""
        return response

    def _version(self, spec: Any) -> Version:
        choice = spec.WhichOneof("version_choice")
        number = spec.version.value if choice == "version" else None
        label = spec.version_label if choice == "version_label" else None
        return self._service.store.find(spec.name, number, label)


def _method(service: Service, handler: Handler, request: type[Message]) -> grpc.RpcMethodHandler:
    async def safe(data: bytes, context: Context) -> Any:
        try:
            with service.held() as held:
                held.add(len(data))
                # Here, and not where gRPC does it: small parts may make a large message of few bytes.
                message = await service.apart(len(data) // _PARSED_FASTER, lambda: request.FromString(data))
                return await handler(message, context)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message is no {request.DESCRIPTOR.name}")
        except RequestError as error:
            await context.abort(_code(error), str(error))
        except Exception as error:
            note(f"a request failed: {type(error).__name__}: {error}")
            await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__} in the server")

    # Without a deserializer the handler gets the bytes.
    return grpc.unary_unary_rpc_method_handler(safe, response_serializer=_serialized)


def _serialized(response: Any) -> bytes:
    data: bytes = response if isinstance(response, bytes) else response.SerializeToString()
    return data


def _code(error: RequestError) -> grpc.StatusCode:
    return grpc.StatusCode[error.status.grpc]


def _outputs(request: Any, servable: Servable) -> list[str]:
    known = [spec.name for spec in servable.signature.outputs]
    for name in request.output_filter:
        if name not in known:
            raise invalid(f"the model has no output {name!r}; it has {', '.join(known)}")
    return list(dict.fromkeys(request.output_filter)) or known


def _arrays(request: Any, servable: Servable, limits: Limits) -> Arrays:
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
        if has_rows(spec):
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
    check_shape(shape, spec)
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


def _proto(array: Array) -> Any:
    """An output, in the field of its type, as TensorFlow Serving answers."""
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
