"""Routes the paths of the two services that run batch prediction jobs.

POST, GET /v1/projects/{project}/locations/{location}/batchPredictionJobs
GET /v1/projects/{project}/locations/{location}/models/{model}, .../{project}/models/{model}[/versions/{version}]
GET, DELETE .../batchPredictionJobs/{job};  POST .../batchPredictionJobs/{job}:cancel
POST, GET /v1/projects/{project}/jobs;  GET .../jobs/{job};  POST .../jobs/{job}:cancel
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from model.serving import rest_google
from model.serving.errors import RequestError, Status, invalid, note
from model.serving.http import HttpProtocol, ResetResponse
from model.serving.jobs import ai_platform, vertex
from model.serving.jobs.job import Job
from model.serving.jobs.queue import JobQueue
from model.serving.jobs.told import Json, version_number
from model.serving.service import Service
from model.serving.tf_json import read_request

_VERTEX = "/v1/projects/{project}/locations/{location}/batchPredictionJobs"
_AI_PLATFORM = "/v1/projects/{project}/jobs"
_MOST_BODY = 1 << 20
_MOST_PAGE = 100
_CONDITION = re.compile(r"""\s*(displayName|state|jobId|labels\.[\w-]+)\s*[=:]\s*"?([^"]*?)"?\s*""", re.ASCII)

Action = Callable[[Request, bytes], Json]


def routes(service: Service, queue: JobQueue) -> list[Route]:
    """Returns the routes of both services."""
    api = rest_google.VERTEX

    def path(template: str, request: Request) -> str:
        return template.removeprefix("/v1/").format(**request.path_params)

    def submit_vertex(request: Request, body: bytes) -> Json:
        parent = path(_VERTEX, request)
        name = f"{parent}/{random.SystemRandom().randrange(10**18, 10**19)}"
        job = Job(name, vertex.task_of(service, queue, read_request(body, service.limits), parent.rpartition("/")[0]))
        queue.submit(job)
        return vertex.told(job)

    def submit_ai_platform(request: Request, body: bytes) -> Json:
        parent = path(_AI_PLATFORM, request)
        task, job_id = ai_platform.task_of(service, queue, read_request(body, service.limits))
        job = Job(f"{parent}/{job_id}", task)
        queue.submit(job)
        return ai_platform.told(job)

    def listed(template: str, key: str, told: Callable[[Job], Json]) -> Action:
        def action(request: Request, _: bytes) -> Json:
            conditions = _conditions(request.query_params.get("filter", ""))
            found = [told(job) for job in queue.below(path(template, request))]
            chosen = [each for each in found if _is_wanted(each, conditions)]
            return _page(chosen, key, request)

        return action

    def one(template: str, told: Callable[[Job], Json]) -> Action:
        return lambda request, _: told(queue.find(path(template + "/{job}", request)))

    def cancel(template: str) -> Action:
        def action(request: Request, _: bytes) -> Json:
            queue.find(path(template + "/{job}", request)).cancel()
            return {}

        return action

    def remove(request: Request, _: bytes) -> Json:
        queue.remove(path(_VERTEX + "/{job}", request))
        return {"name": f"{path(_VERTEX, request)}/operations/1", "done": True, "response": {}}

    def route(template: str, method: str, action: Action) -> Route:
        return Route(template, _endpoint(api, queue, action), methods=[method])

    return [
        *_models(service, api, queue),
        route(_VERTEX, "POST", submit_vertex),
        route(_VERTEX, "GET", listed(_VERTEX, "batchPredictionJobs", vertex.told)),
        route(_VERTEX + "/{job}:cancel", "POST", cancel(_VERTEX)),
        route(_VERTEX + "/{job}", "GET", one(_VERTEX, vertex.told)),
        route(_VERTEX + "/{job}", "DELETE", remove),
        route(_AI_PLATFORM, "POST", submit_ai_platform),
        route(_AI_PLATFORM, "GET", listed(_AI_PLATFORM, "jobs", ai_platform.told)),
        route(_AI_PLATFORM + "/{job}:cancel", "POST", cancel(_AI_PLATFORM)),
        route(_AI_PLATFORM + "/{job}", "GET", one(_AI_PLATFORM, ai_platform.told)),
    ]


def _models(service: Service, api: HttpProtocol, queue: JobQueue) -> list[Route]:
    """The routes that tell of a model: whether it is there is looked at before a job is submitted."""

    def action(request: Request, _: bytes) -> Json:
        given = request.path_params
        name, _at, alias = given["model"].partition("@")
        found = service.models.find(name, version_number(given.get("version") or alias))
        told = {"displayName": name, "versionId": str(found.number)}
        return {"name": request.url.path.removeprefix("/v1/"), **told}

    paths = ("locations/{location}/models/{model}", "models/{model}", "models/{model}/versions/{version}")
    return [Route(f"/v1/projects/{{project}}/{path}", _endpoint(api, queue, action), methods=["GET"]) for path in paths]


def _endpoint(api: HttpProtocol, queue: JobQueue, action: Action) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        try:
            queue.admit()
            body = await _body(request)
            answer = await asyncio.to_thread(action, request, body)
        except RequestError as error:
            return api.response(error)
        except Exception as error:
            note(f"a request failed: {type(error).__name__}: {error}")
            return api.response(RequestError(Status.INTERNAL, f"{type(error).__name__} in the server"))
        if queue.loses_answer():
            return ResetResponse()
        return Response(orjson.dumps(answer), media_type="application/json")

    return endpoint


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _MOST_BODY:
            raise RequestError(Status.TOO_LARGE, f"the body has more than {_MOST_BODY >> 10} KiB")
        chunks.append(chunk)
    return b"".join(chunks)


def _conditions(text: str) -> list[tuple[str, str]]:
    """Reads a filter, conditions joined by AND: (member, value). Raises RequestError: one is not known here."""
    found = []
    for part in filter(None, re.split(r"\s+AND\s+", text)):
        read = _CONDITION.fullmatch(part)
        if read is None:
            raise invalid(f'filter: {part[:100]!r} is not known here; it looks like labels.NAME="VALUE"')
        found.append((read[1], read[2]))
    return found


def _is_wanted(found: Json, conditions: list[tuple[str, str]]) -> bool:
    """Tells whether a job fits all conditions."""
    labels = found.get("labels") or {}
    return all(
        (labels.get(name.removeprefix("labels.")) if name.startswith("labels.") else found.get(name)) == value
        for name, value in conditions
    )


def _page(found: list[Json], key: str, request: Request) -> Json:
    given = request.query_params
    try:
        start = int(given.get("pageToken") or 0)
        size = min(_MOST_PAGE, max(1, int(given.get("pageSize") or _MOST_PAGE)))
        if start < 0:
            raise ValueError
    except ValueError:
        raise invalid("pageSize and pageToken are numbers, as an answer gave them") from None
    page: Json = {key: found[start : start + size]}
    return page | ({"nextPageToken": str(start + size)} if start + size < len(found) else {})
