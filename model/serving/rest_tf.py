"""Serves TensorFlow Serving's REST API, on whose paths KServe's first version is, too.

POST /v1/models/{model}[/versions/{version} | /labels/{label}]:predict|classify|regress
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
from model.serving.errors import RequestError, invalid
from model.serving.examples import examples_in_json
from model.serving.http import HttpAnswer, HttpProtocol, Render, guarded, prediction
from model.serving.servable import Version
from model.serving.service import Query, Service
from model.serving.tensors import Arrays, pairs_to_json, to_json
from model.serving.tf_json import read_inputs, read_request, signature_name, write_columns, write_rows
from model.serving.verbs import CLASSIFY, INPUT, REGRESS, Verb, classifications, regressions, servable_for

_VERSION_DIGITS = 18
_MODEL = "/v1/models/{model}"
_PLACES = (_MODEL, _MODEL + "/versions/{version}", _MODEL + "/labels/{label}")


def routes(service: Service) -> list[Route]:
    """Returns the routes of the API."""

    def models(request: Request) -> Response:
        return json_response({"models": list(service.models.stores)})

    def status(request: Request) -> Response:
        return json_response(_status(service, request))

    def metadata(request: Request) -> Response:
        return json_response(_metadata(requested_version(service, request)))

    found = [Route("/v1/models", guarded(API, models), methods=["GET"])]
    for place in _PLACES:
        found += [prediction(service, f"{place}:{verb}", api) for verb, api in _APIS.items()]
        found.append(Route(place + "/metadata", guarded(API, metadata), methods=["GET"]))
    # Last: {model} matches whatever has no slash in it.
    found += [Route(place, guarded(API, status), methods=["GET"]) for place in _PLACES]
    return found


def json_response(value: Any) -> Response:
    """Returns a response with a value as JSON."""
    return Response(orjson.dumps(value), media_type="application/json")


def requested_version(service: Service, request: Request) -> Version:
    """Returns the version that a path names. Raises RequestError if there is none."""
    return service.models.find(_model_name(request), *_choice(request))


def malformed(request: Request) -> RequestError:
    """Returns the answer to what is no request of this API."""
    return invalid(f"Malformed request: {request.method} {request.url.path}")


def _model_name(request: Request) -> str:
    """The model in a path. Raises RequestError if there is a verb in it, which is for POST or unknown."""
    name: str = request.path_params["model"]
    if ":" in name:
        raise malformed(request)
    return name


def _choice(request: Request) -> tuple[int | None, str | None]:
    """The version and the label in a path. Raises RequestError if the version is no number."""
    version = request.path_params.get("version")
    if version is not None and not (version.isdecimal() and version.isascii()):
        raise malformed(request)
    if version is not None and len(version) > _VERSION_DIGITS:
        raise invalid(f"Failed to convert version: {version} to numeric.")
    return None if version is None else int(version), request.path_params.get("label")


def answer_to(service: Service, body: bytes, version: Version) -> tuple[Query, Render]:
    """Returns what a request in TensorFlow Serving's JSON asks for, and how it is answered."""
    request = read_request(body, service.limits)
    servable = version.servable(signature_name(request, service.options.signature))
    arrays, rows = read_inputs(request, servable, service.limits)

    def render(outputs: Arrays) -> HttpAnswer:
        if rows:
            return HttpAnswer(b'{"predictions":' + write_rows(outputs) + b"}")
        return HttpAnswer(b'{"outputs":' + write_columns(outputs) + b"}")

    return Query(servable, arrays), render


def _parse(service: Service, request: Request, body: bytes) -> tuple[Query, Render]:
    return answer_to(service, body, requested_version(service, request))


def _parse_classify(service: Service, request: Request, body: bytes) -> tuple[Query, Render]:
    def render(outputs: Arrays) -> HttpAnswer:
        return HttpAnswer(b'{"results":' + pairs_to_json(*classifications(outputs), name="classes") + b"}")

    return _examples_query(service, request, body, CLASSIFY), render


def _parse_regress(service: Service, request: Request, body: bytes) -> tuple[Query, Render]:
    def render(outputs: Arrays) -> HttpAnswer:
        return HttpAnswer(b'{"results":' + to_json(regressions(outputs), "results") + b"}")

    return _examples_query(service, request, body, REGRESS), render


def _examples_query(service: Service, request: Request, body: bytes, verb: Verb) -> Query:
    version = requested_version(service, request)
    content = read_request(body, service.limits)
    servable = servable_for(version, signature_name(content, service.options.signature), verb)
    return Query(servable, {INPUT: examples_in_json(content, service.limits)}, rowwise=True)


def _status(service: Service, request: Request) -> dict[str, Any]:
    """The state of the versions, or of one, as GetModelStatusResponse is written in JSON."""
    states = service.models.store(_model_name(request)).states(*_choice(request))
    return {"model_version_status": [_version_status(number, failure) for number, failure in states.items()]}


def _version_status(number: int, failure: str | None) -> dict[str, Any]:
    """The state of a version, in the words of TensorFlow Serving."""
    error = {"error_code": "UNKNOWN" if failure else "OK", "error_message": failure or ""}
    return {"version": str(number), "state": "END" if failure else "AVAILABLE", "status": error}


def _metadata(version: Version) -> dict[str, Any]:
    definitions = get_model_metadata_pb2.SignatureDefMap(signature_def=version.definitions)
    described = MessageToDict(definitions, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    spec = {"name": version.model_name, "signature_name": "", "version": str(version.number)}
    return {"model_spec": spec, "metadata": {"signature_def": described}}


def _error(error: RequestError) -> bytes:
    return orjson.dumps({"error": str(error)})


API = HttpProtocol("tf_serving_rest", _parse, _error)
_APIS = {
    "predict": API,
    "classify": HttpProtocol(API.name, _parse_classify, _error),
    "regress": HttpProtocol(API.name, _parse_regress, _error),
}
