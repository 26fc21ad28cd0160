"""Serves the prediction paths of Google's clouds: AI Platform (version 1 of its API) and Vertex AI.

POST /v1/projects/{project}/models/{model}[/versions/{version}]:predict
POST /v1/projects/{project}/locations/{location}/endpoints/{endpoint}:predict
POST /v1/projects/{project}/locations/{location}/endpoints/{endpoint}:rawPredict

Any project and location will do; an endpoint's name is that of its model. A version is a number,
with or without a v, or a label. The clouds' own limits, such as 1.5 MB a request, are not rehearsed. A NaN is
written as the token NaN.
"""

import re

import orjson
from starlette.requests import Request
from starlette.routing import Route

from model.serving.errors import RequestError, Status
from model.serving.http import HttpAnswer, HttpProtocol, Render, prediction
from model.serving.rest_tf import answer_to
from model.serving.servable import Version
from model.serving.service import Query, Service
from model.serving.tensors import Arrays
from model.serving.tf_json import read_inputs, read_request, signature_name, write_rows

_MODEL = "/v1/projects/{project}/models/{model}"
_ENDPOINT = "/v1/projects/{project}/locations/{location}/endpoints/{endpoint}"
_NUMBER = re.compile(r"v?([0-9]{1,18})", re.ASCII)


def routes(service: Service) -> list[Route]:
    """Returns the routes of both clouds."""
    return [
        prediction(service, _MODEL + ":predict", AI_PLATFORM),
        prediction(service, _MODEL + "/versions/{version}:predict", AI_PLATFORM),
        prediction(service, _ENDPOINT + ":predict", VERTEX),
        prediction(service, _ENDPOINT + ":rawPredict", VERTEX_RAW),
    ]


def _ai_platform(service: Service, request: Request, body: bytes) -> tuple[Query, Render]:
    path = request.path_params
    given = path.get("version")
    number = None if given is None else _NUMBER.fullmatch(given)
    label = given if number is None else None
    resource = f"projects/{path['project']}/models/{path['model']}"
    try:
        version = service.models.find(path["model"], int(number[1]) if number else None, label)
    except RequestError as error:
        named = resource if given is None else f"{resource}/versions/{given}"
        raise RequestError(Status.NOT_FOUND, f"Field: name Error: {named} was not found.") from error
    content = read_request(body, service.limits)
    servable = version.servable(signature_name(content, service.options.signature))
    arrays, _ = read_inputs(content, servable, service.limits, columns=False)
    return Query(servable, arrays), lambda outputs: HttpAnswer(b'{"predictions":' + write_rows(outputs) + b"}")


def _vertex(service: Service, request: Request, body: bytes) -> tuple[Query, Render]:
    version = _deployed(service, request)
    servable = version.servable(service.options.signature)
    arrays, _ = read_inputs(read_request(body, service.limits), servable, service.limits, columns=False)
    path = request.path_params
    model = {
        "deployedModelId": str(version.number),
        "model": f"projects/{path['project']}/locations/{path['location']}/models/{version.model_name}",
        "modelDisplayName": version.model_name,
        "modelVersionId": str(version.number),
    }

    def render(outputs: Arrays) -> HttpAnswer:
        return HttpAnswer(b'{"predictions":' + write_rows(outputs) + b"," + orjson.dumps(model)[1:])

    return Query(servable, arrays), render


def _vertex_raw(service: Service, request: Request, body: bytes) -> tuple[Query, Render]:
    return answer_to(service, body, _deployed(service, request))


def _deployed(service: Service, request: Request) -> Version:
    endpoint = request.path_params["endpoint"]
    try:
        return service.models.find(endpoint)
    except RequestError as error:
        raise RequestError(Status.NOT_FOUND, f"Endpoint `{endpoint}` not found.") from error


def _error(error: RequestError) -> bytes:
    code = error.status.http
    return orjson.dumps({"error": {"code": code, "message": str(error), "status": error.status.grpc}})


AI_PLATFORM = HttpProtocol("ai_platform", _ai_platform, _error)
VERTEX = HttpProtocol("vertex", _vertex, _error)
VERTEX_RAW = HttpProtocol("vertex_raw", _vertex_raw, _error)
