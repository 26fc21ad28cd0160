"""Serves TensorFlow Serving's gRPC: PredictionService, and of ModelService GetModelStatus."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from model.runtime.messages import classification_pb2, inference_pb2, predict_pb2, regression_pb2
from model.runtime.messages import get_model_metadata_pb2 as metadata_pb2
from model.runtime.messages import get_model_status_pb2 as status_pb2
from model.serving.errors import RequestError, Status, invalid, note
from model.serving.examples import examples_in_message
from model.serving.rpc_tensors import input_arrays, output_tensor, wanted_outputs
from model.serving.servable import Servable, Version
from model.serving.service import Query, Service
from model.serving.tensors import Array, Arrays
from model.serving.verbs import CLASSIFY, INPUT, REGRESS, Verb, classifications, regressions, servable_for

PROTOCOL = "tf_serving_grpc"

_STREAMS_OF_CONNECTION = 128
_PARSED_FASTER = 16  # than its values become arrays, about
_PING_SECONDS = 30
_ANSWER_PING_SECONDS = 10
_OLDEST_CONNECTION_SECONDS = 600

_SPOILED = {
    "reset": (grpc.StatusCode.UNAVAILABLE, "the connection was reset, on purpose"),
    "html": (grpc.StatusCode.UNKNOWN, "a page of HTML in place of an answer, on purpose"),
}

Context = Any
Handler = Callable[[Any, Context], Awaitable[Any]]
Answer = Callable[[Any, str | None], Awaitable[bytes]]
"""Makes of a request, and of how its answer is to be spoiled, the answer's bytes."""


def create_server(service: Service) -> grpc.aio.Server:
    """Returns a server of the two services, without a port yet. Called in the event loop that runs it."""
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
        "Classify": _method(service, rpc.classify, classification_pb2.ClassificationRequest),
        "Regress": _method(service, rpc.regress, regression_pb2.RegressionRequest),
        "MultiInference": _method(service, rpc.multi_inference, inference_pb2.MultiInferenceRequest),
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
        return await self._answered(self._predicted, request, context)

    async def classify(self, request: Any, context: Context) -> Any:
        """PredictionService.Classify."""
        return await self._answered(self._classified, request, context)

    async def regress(self, request: Any, context: Context) -> Any:
        """PredictionService.Regress."""
        return await self._answered(self._regressed, request, context)

    async def multi_inference(self, request: Any, context: Context) -> Any:
        """PredictionService.MultiInference."""
        return await self._answered(self._inferred, request, context)

    async def _answered(self, answer: Answer, request: Any, context: Context) -> bytes:
        """Answers a request for predictions, or spoils the answer on purpose."""
        with self._service.counted(PROTOCOL) as outcome:
            try:
                fault = await self._service.admit()
                if fault in _SPOILED:
                    outcome.code = _SPOILED[fault][0].name
                    await context.abort(*_SPOILED[fault])
                data = await answer(request, fault)
            except RequestError as error:
                code = _code(error)
                outcome.code = code.name
                await context.abort(code, str(error))
            except asyncio.CancelledError:
                outcome.code = "CANCELLED"
                raise
            outcome.code = "OK"
            return data[: len(data) // 2] if fault == "truncated" else data

    async def _predicted(self, request: Any, fault: str | None) -> bytes:
        service = self._service
        servable = self._version(request).servable(self._signature(request.model_spec))

        def read() -> tuple[list[str], Arrays]:
            return wanted_outputs(request, servable), input_arrays(request, servable, service.limits)

        wanted, arrays = await service.apart(request.ByteSize(), read)
        outputs = await service.predict(Query(servable, arrays), fault)

        def respond() -> bytes:
            response = predict_pb2.PredictResponse()
            _name_model(response.model_spec, servable)
            for name in wanted:
                response.outputs[name].CopyFrom(output_tensor(outputs[name]))
            return _serialized(response)

        return await service.apart(_size(outputs), respond)

    async def _classified(self, request: Any, fault: str | None) -> bytes:
        servable = servable_for(self._version(request), self._signature(request.model_spec), CLASSIFY)
        outputs = await self._from_examples(servable, await self._examples(request), fault)

        def respond() -> bytes:
            response = classification_pb2.ClassificationResponse()
            _name_model(response.model_spec, servable)
            _add_classes(response.result, outputs)
            return _serialized(response)

        return await self._service.apart(_size(outputs), respond)

    async def _regressed(self, request: Any, fault: str | None) -> bytes:
        servable = servable_for(self._version(request), self._signature(request.model_spec), REGRESS)
        outputs = await self._from_examples(servable, await self._examples(request), fault)

        def respond() -> bytes:
            response = regression_pb2.RegressionResponse()
            _name_model(response.model_spec, servable)
            _add_values(response.result, outputs)
            return _serialized(response)

        return await self._service.apart(_size(outputs), respond)

    async def _inferred(self, request: Any, fault: str | None) -> bytes:
        tasks = self._tasks(request)
        examples = await self._examples(request)
        answers = [(verb, servable, await self._from_examples(servable, examples, fault)) for verb, servable in tasks]

        def respond() -> bytes:
            response = inference_pb2.MultiInferenceResponse()
            for verb, servable, outputs in answers:
                result = response.results.add()
                _name_model(result.model_spec, servable)
                if verb is CLASSIFY:
                    _add_classes(result.classification_result, outputs)
                else:
                    _add_values(result.regression_result, outputs)
            return _serialized(response)

        return await self._service.apart(sum(_size(outputs) for _, _, outputs in answers), respond)

    def _tasks(self, request: Any) -> list[tuple[Verb, Servable]]:
        """The signatures that are asked for, each once, of one model, with their verbs."""
        if not request.tasks:
            raise invalid("the request has no tasks")
        version = self._version(request.tasks[0])
        tasks: dict[str, tuple[Verb, Servable]] = {}
        for task in request.tasks:
            spec = task.model_spec
            if not spec.name:
                raise invalid("Found ModelSpec with an empty model name.")
            if spec.name != version.model_name:
                raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            name = self._signature(spec)
            if name in tasks:
                raise invalid(f"Duplicate evaluation of signature: {name}")
            verb = next((verb for verb in (CLASSIFY, REGRESS) if verb.method == task.method_name), None)
            if verb is None:
                raise RequestError(Status.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
            tasks[name] = verb, servable_for(version, name, verb)
        return list(tasks.values())

    async def _examples(self, request: Any) -> Array:
        limits = self._service.limits
        return await self._service.apart(request.ByteSize(), lambda: examples_in_message(request.input, limits))

    async def _from_examples(self, servable: Servable, examples: Array, fault: str | None) -> Arrays:
        return await self._service.predict(Query(servable, {INPUT: examples}, rowwise=True), fault)

    async def metadata(self, request: Any, context: Context) -> Any:
        """PredictionService.GetModelMetadata."""
        version = self._version(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != "signature_def":
                raise invalid(f"Metadata field {name} is not supported; ask for signature_def")
        response = metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = version.model_name
        response.model_spec.version.value = version.number
        response.metadata["signature_def"].Pack(metadata_pb2.SignatureDefMap(signature_def=version.definitions))
        return response

    async def status(self, request: Any, context: Context) -> Any:
        """ModelService.GetModelStatus."""
        spec = _model_spec(request)
        response = status_pb2.GetModelStatusResponse()
        for number, failure in self._service.models.store(spec.name).states(*_choice(spec)).items():
            state = response.model_version_status.add(version=number)
            state.state = state.END if failure else state.AVAILABLE
            state.status.error_code = grpc.StatusCode.UNKNOWN.value[0] if failure else 0
            state.status.error_message = failure or ""
        return response

    def _signature(self, spec: Any) -> str:
        return spec.signature_name or self._service.options.signature

    def _version(self, request: Any) -> Version:
        spec = _model_spec(request)
        return self._service.models.find(spec.name, *_choice(spec))


def _model_spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    if not request.model_spec.name:
        raise invalid("ModelSpec has no name specified.")
    return request.model_spec


def _choice(spec: Any) -> tuple[int | None, str | None]:
    """The version and the label that are asked for."""
    choice = spec.WhichOneof("version_choice")
    number = spec.version.value if choice == "version" else None
    return number, spec.version_label if choice == "version_label" else None


def _name_model(spec: Any, servable: Servable) -> None:
    """Says in an answer who answers."""
    spec.name = servable.version.model_name
    spec.version.value = servable.version.number
    spec.signature_name = servable.signature.name


def _add_classes(result: Any, outputs: Arrays) -> None:
    classes, scores = classifications(outputs)
    labels = None if classes is None else classes.tolist()
    values = None if scores is None else scores.tolist()
    shape = outputs[next(iter(outputs))].shape
    for row in range(shape[0]):
        found = result.classifications.add().classes
        for at in range(shape[1]):
            # A label may be any bytes for TensorFlow; in the message it is text.
            label = labels[row][at].decode("utf-8", "replace") if labels is not None else ""
            found.add(label=label, score=values[row][at] if values is not None else 0.0)


def _add_values(result: Any, outputs: Arrays) -> None:
    for value in regressions(outputs).tolist():
        result.regressions.add(value=value)


def _size(outputs: Arrays) -> int:
    return sum(array.nbytes for array in outputs.values())


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
