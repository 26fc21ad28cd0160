"""TensorFlow Serving's REST API, on whose paths KServe's first version is, too.

POST /v1/models/{model}[/versions/{version} | /labels/{label}]:predict
GET  /v1/models/{model}[/versions/{version} | /labels/{label}][/metadata]
GET  /v1/models
"""

from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model.runtime.messages import get_model_metadata_pb2
from model.serving.errors import RequestError, Status
from model.serving.http import Answer, Api, Render, guarded, prediction
from model.serving.service import Query, Service
from model.serving.store import Version
from model.serving.tensors import Arrays
from model.serving.tf_json import read_inputs, read_request, signature_name, write_columns, write_rows

_MODEL = "/v1/models/{model}"
_PLACES = (_MODEL, _MODEL + "/versions/{version}", _MODEL + "/labels/{label}")


def routes(service: Service) -> list[Route]:
    """The routes of the API."""

    def models(request: Request) -> Response:
        return json_response({"models": [service.store.name]})

    def status(request: Request) -> Response:
        return json_response(_status(service, request))

    def metadata(request: Request) -> Response:
        return json_response(_metadata(service.store.name, requested_version(service, request)))

    found = [Route("/v1/models", guarded(API, models), methods=["GET"])]
    for place in _PLACES:
        found.append(prediction(service, place + ":predict", API))
        found.append(Route(place + "/metadata", guarded(API, metadata), methods=["GET"]))
    # Last: {model} matches whatever has no slash in it.
    found += [Route(place, guarded(API, status), methods=["GET"]) for place in _PLACES]
    return found


def json_response(value: Any) -> Response:
    """A response with a value as JSON."""
    return Response(orjson.dumps(value), media_type="application/json")


def requested_version(service: Service, request: Request) -> Version:
    """The version that a path names. Raises RequestError if there is none."""
    path = request.path_params
    version = path.get("version")
    if version is not None and not (version.isdecimal() and version.isascii() and len(version) <= 18):
        raise RequestError(Status.NOT_FOUND, f"Servable not found for request: Specific({path['model']}, {version})")
    return service.store.find(path["model"], None if version is None else int(version), path.get("label"))


def answer_to(service: Service, body: bytes, version: Version) -> tuple[Query, Render]:
    """What a request in TensorFlow Serving's JSON asks for, and how it is answered."""
    request = read_request(body, service.limits)
    servable = version.servable(signature_name(request, service.options.signature))
    arrays, rows = read_inputs(request, servable, service.limits)

    def render(outputs: Arrays) -> Answer:
        if rows:
            return Answer(b'{"predictions":' + write_rows(outputs) + b"}")
        return Answer(b'{"outputs":' + write_columns(outputs) + b"}")

    return Query(servable, arrays), render


def _parse(service: Service, request: Request, body: bytes) -> tuple[Query, Render]:
    return answer_to(service, body, requested_version(service, request))


def _status(service: Service, request: Request) -> dict[str, Any]:
    """The state of the versions; of all of them with what KServe's clients ask for on the same path."""
    if request.path_params.keys() != {"model"}:
        return {"model_version_status": [version_status(requested_version(service, request).number)]}
    name = request.path_params["model"]
    if name != service.store.name:
        raise RequestError(Status.NOT_FOUND, f"Could not find any versions of model {name}")
    states = {number: version_status(number, reason) for number, reason in service.store.failures.items()}
    states |= {number: version_status(number) for number in service.store.versions}
    newest_first = [state for _, state in sorted(states.items(), reverse=True)]
    return {"name": name, "ready": True, "model_version_status": newest_first}


def version_status(number: int, failure: str | None = None) -> dict[str, Any]:
    """The state of a version, in the words of TensorFlow Serving."""
    error = {"error_code": "UNKNOWN" if failure else "OK", "error_message": failure or ""}
    return {"version": str(number), "state": "END" if failure else "AVAILABLE", "status": error}


def _metadata(name: str, version: Version) -> dict[str, Any]:
    definitions = get_model_metadata_pb2.SignatureDefMap(signature_def=version.definitions)
    described = MessageToDict(definitions, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    spec = {"name": name, "signature_name": "", "version": str(version.number)}
    return {"model_spec": spec, "metadata": {"signature_def": described}}


def _error(error: RequestError) -> bytes:
    return orjson.dumps({"error": str(error)})


API = Api("tf_serving_rest", _parse, _error)
