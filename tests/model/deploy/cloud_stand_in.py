"""Stands in for AI Platform v1, Vertex AI v1 and Cloud Storage on loopback, as far as a deployment needs them.

The first two keep state as the services document it: resources that exist twice or not at all, long-running operations
that end after some polls, what may not be deleted. Every request is kept in a log. Faults are data.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Json = dict[str, Any]
NUMBER = "123456789012"
"""The project's: Vertex AI answers with it instead of the id."""


class Refusal(Exception):
    """An error answer."""

    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass
class Seen:
    """A request."""

    method: str
    url: str
    body: Json | None
    authorization: str | None

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


@dataclass
class Fault:
    """What happens instead of an answer, or after the request was carried out.

    Attributes:
      match: regular expression of "METHOD /path?query".
      code: HTTP status; 0 closes the connection by way of an answer that is broken off.
      times: how often.
      after: carry the request out first.
    """

    match: str
    code: int
    message: str = "the service is busy"
    times: int = 1
    after: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


class CloudStandIn:
    """The two prediction services.

    Attributes:
      log: all requests, in order.
      faults: those to come.
      polls: how often an operation is asked for before it is done.
      failures: regular expression of "METHOD /path" -> message of the operation that it starts; each used once.
      token: what callers must send; None if anything goes.
      has_model: tells whether a SavedModel is at a gs:// address.
      models: AI Platform's, by name.
      vertex_models: by id; `versions` by number.
      endpoints: by id.
    """

    def __init__(self, has_model: Callable[[str], bool]) -> None:
        self.log: list[Seen] = []
        self.faults: list[Fault] = []
        self.polls = 2
        self.failures: dict[str, str] = {}
        self.token: str | None = None
        self.has_model = has_model
        self.models: dict[str, Json] = {}
        self.vertex_models: dict[str, Json] = {}
        self.endpoints: dict[str, Json] = {}
        self._operations: dict[str, Json] = {}
        self._next = 1000
        vertex = r"/v1/projects/([\w-]+)/locations/([\w-]+)"
        self._routes: list[tuple[str, str, Callable[..., Json]]] = [
            ("GET", r"/v1/(projects/.+/operations/[\w.-]+)", self._operation),
            ("POST", r"/v1/projects/([\w-]+)/models", self._make_model),
            ("GET", r"/v1/projects/([\w-]+)/models/(\w+)", self._get_model),
            ("DELETE", r"/v1/projects/([\w-]+)/models/(\w+)", self._delete_model),
            ("GET", r"/v1/projects/([\w-]+)/models/(\w+)/versions", self._list_versions),
            ("POST", r"/v1/projects/([\w-]+)/models/(\w+)/versions", self._make_version),
            ("GET", r"/v1/projects/([\w-]+)/models/(\w+)/versions/(\w+)", self._get_version),
            ("DELETE", r"/v1/projects/([\w-]+)/models/(\w+)/versions/(\w+)", self._delete_version),
            ("POST", r"/v1/projects/([\w-]+)/models/(\w+)/versions/(\w+):setDefault", self._set_default),
            ("GET", f"{vertex}/models", self._list_vertex),
            ("GET", f"{vertex}/endpoints", self._list_endpoints),
            ("GET", rf"{vertex}/models/(\d+):listVersions", self._list_vertex_versions),
            ("POST", f"{vertex}/models:upload", self._upload),
            ("DELETE", rf"{vertex}/models/(\d+)", self._delete_vertex),
            ("DELETE", rf"{vertex}/models/(\d+)@(\d+):deleteVersion", self._delete_vertex_version),
            ("POST", f"{vertex}/endpoints", self._make_endpoint),
            ("PATCH", rf"{vertex}/endpoints/(\d+)", self._patch_endpoint),
            ("DELETE", rf"{vertex}/endpoints/(\d+)", self._delete_endpoint),
            ("POST", rf"{vertex}/endpoints/(\d+):deployModel", self._deploy),
            ("POST", rf"{vertex}/endpoints/(\d+):undeployModel", self._undeploy),
        ]

    @property
    def writes(self) -> list[Seen]:
        return [seen for seen in self.log if seen.is_write]

    @property
    def resources(self) -> list[str]:
        """Whatever there is."""
        return [*self.models, *self.vertex_models, *self.endpoints]

    @property
    def calls(self) -> list[Seen]:
        """All but the polls."""
        return [seen for seen in self.log if "/operations/" not in seen.url]

    @contextmanager
    def serve(self, **tls: str) -> Iterator[str]:
        """Serves on a free port; gives the address."""
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST", "PATCH", "DELETE"])])
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", **tls))  # type: ignore[arg-type]
        # Without the protocol's name asyncio does not turn off Nagle's algorithm: 40 ms an answer.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.bind(("127.0.0.1", 0))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.005)
            try:
                yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                server.force_exit = True
                thread.join(timeout=10)
                assert not thread.is_alive()

    async def _answer(self, request: Request) -> Response:
        raw = await request.body()
        url = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        body = json.loads(raw) if raw else None
        self.log.append(Seen(request.method, url, body, request.headers.get("authorization")))
        fault = next((f for f in self.faults if f.times > 0 and re.search(f.match, f"{request.method} {url}")), None)
        if fault is not None:
            fault.times -= 1
        if fault is None or fault.after:
            answer = self._carry_out(request, body)
            if fault is None:
                return answer
        content = fault.body
        if content is None:
            content = json.dumps({"error": {"code": fault.code, "message": fault.message, "status": "FAULT"}}).encode()
        if fault.code == 0:
            return Response(content, headers={"content-length": str(len(content) + 100)})
        return Response(content, fault.code, fault.headers, "application/json")

    def _carry_out(self, request: Request, body: Json | None) -> Response:
        try:
            if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
                raise Refusal(401, "UNAUTHENTICATED", f"not good: {request.headers.get('authorization')}")
            for method, pattern, action in self._routes:
                match = re.fullmatch(pattern, request.url.path)
                if match and method == request.method:
                    return JSONResponse(action(*match.groups(), *self._extras(method, request, body)))
            raise Refusal(404, "NOT_FOUND", f"no such method: {request.method} {request.url.path}")
        except Refusal as error:
            content = {"error": {"code": error.code, "message": str(error), "status": error.status}}
            return JSONResponse(content, error.code)

    def _extras(self, method: str, request: Request, body: Json | None) -> list[Any]:
        if method in ("POST", "PATCH"):
            return [body or {}]
        lists = request.url.path.endswith(("/versions", "/models", "/endpoints", ":listVersions"))
        return [dict(request.query_params)] if lists and method == "GET" else []

    # Long-running operations

    def _start(self, name: str, request: str, finish: Callable[[], Json], failed: Callable[[str], None]) -> Json:
        failure = next((key for key in self.failures if re.search(key, request)), None)
        error = self.failures.pop(failure) if failure else None
        self._operations[name] = {"left": self.polls, "finish": finish, "error": error, "failed": failed}
        return self._state(name)

    def _state(self, name: str) -> Json:
        operation = self._operations[name]
        if operation["left"] > 0:
            return {"name": name, "done": False}
        if "answer" not in operation:
            if operation["error"]:
                operation["failed"](operation["error"])
                operation["answer"] = {"error": {"code": 9, "message": operation["error"]}}
            else:
                operation["answer"] = {"response": operation["finish"]()}
        return {"name": name, "done": True, **operation["answer"]}

    def _operation(self, name: str) -> Json:
        if name not in self._operations:
            raise Refusal(404, "NOT_FOUND", f"Operation {name} not found")
        self._operations[name]["left"] -= 1
        return self._state(name)

    def _id(self) -> str:
        self._next += 1
        return str(self._next)

    # AI Platform

    def _make_model(self, project: str, body: Json) -> Json:
        _only(body, "name", "regions")
        if body["name"] in self.models:
            raise Refusal(409, "ALREADY_EXISTS", "Field: model.name Error: A model with the same name already exists.")
        self.models[body["name"]] = {"regions": body["regions"], "versions": {}}
        return self._get_model(project, body["name"])

    def _model(self, name: str) -> Json:
        if name not in self.models:
            raise Refusal(404, "NOT_FOUND", "Field: name Error: The model resource was not found.")
        return self.models[name]

    def _get_model(self, project: str, name: str) -> Json:
        return {"name": f"projects/{project}/models/{name}", "regions": self._model(name)["regions"]}

    def _delete_model(self, project: str, name: str) -> Json:
        if self._model(name)["versions"]:
            raise Refusal(400, "FAILED_PRECONDITION", "Cannot delete a model with existing versions.")

        def finish() -> Json:
            del self.models[name]
            return {}

        return self._start(f"projects/{project}/operations/d{self._id()}", f"DELETE {name}", finish, lambda error: None)

    def _list_versions(self, project: str, name: str, query: Json) -> Json:
        return _page("versions", [*self._model(name)["versions"].values()], query)

    def _version(self, name: str, version: str) -> Json:
        versions = self._model(name)["versions"]
        if version not in versions:
            raise Refusal(404, "NOT_FOUND", "Field: name Error: The specified model version was not found.")
        return dict(versions[version])

    def _get_version(self, project: str, name: str, version: str) -> Json:
        return self._version(name, version)

    def _make_version(self, project: str, name: str, body: Json) -> Json:
        _only(body, "name", "deploymentUri", "runtimeVersion", "framework", "pythonVersion", "machineType")
        versions, version = self._model(name)["versions"], body["name"]
        if version in versions:
            raise Refusal(409, "ALREADY_EXISTS", "Field: version.name Error: A version with the same name exists.")
        if not self.has_model(body["deploymentUri"]):
            raise Refusal(400, "INVALID_ARGUMENT", f"Field: version.deployment_uri Error: no model at {body}")
        resource = f"projects/{project}/models/{name}/versions/{version}"
        versions[version] = {**body, "name": resource, "state": "CREATING"}

        def finish() -> Json:
            versions[version]["state"] = "READY"
            if not any(other.get("isDefault") for other in versions.values()):
                versions[version]["isDefault"] = True
            return dict(versions[version])

        def failed(error: str) -> None:
            versions[version].update(state="FAILED", errorMessage=error)

        operation = f"projects/{project}/operations/create_{name}_{version}-{self._id()}"
        return self._start(operation, f"POST {version}", finish, failed)

    def _delete_version(self, project: str, name: str, version: str) -> Json:
        versions = self._model(name)["versions"]
        if self._version(name, version).get("isDefault") and len(versions) > 1:
            raise Refusal(400, "FAILED_PRECONDITION", "Cannot delete the default version.")

        def finish() -> Json:
            del versions[version]
            return {}

        operation = f"projects/{project}/operations/delete_{name}_{version}-{self._id()}"
        return self._start(operation, f"DELETE {version}", finish, lambda error: None)

    def _set_default(self, project: str, name: str, version: str, body: Json) -> Json:
        self._version(name, version)
        for other, state in self.models[name]["versions"].items():
            state.pop("isDefault", None)
            if other == version:
                state["isDefault"] = True
        return self._version(name, version)

    # Vertex AI

    def _name(self, location: str, kind: str, id: str) -> str:
        return f"projects/{NUMBER}/locations/{location}/{kind}/{id}"

    def _begin(self, location: str, request: str, finish: Callable[[], Json]) -> Json:
        name = f"projects/{NUMBER}/locations/{location}/operations/{self._id()}"
        return self._start(name, request, finish, lambda error: None)

    def _list_vertex(self, project: str, location: str, query: Json) -> Json:
        newest = [{**m["versions"][max(m["versions"])], "name": m["name"]} for m in self.vertex_models.values()]
        return _page("models", _filtered(newest, query), query)

    def _list_endpoints(self, project: str, location: str, query: Json) -> Json:
        return _page("endpoints", _filtered([*self.endpoints.values()], query), query)

    def _vertex_model(self, id: str) -> Json:
        if id not in self.vertex_models:
            raise Refusal(404, "NOT_FOUND", f"The Model {id} does not exist.")
        return self.vertex_models[id]

    def _endpoint(self, id: str) -> Json:
        if id not in self.endpoints:
            raise Refusal(404, "NOT_FOUND", f"The Endpoint {id} does not exist.")
        return self.endpoints[id]

    def _list_vertex_versions(self, project: str, location: str, id: str, query: Json) -> Json:
        return _page("models", [self._with_deployments(v) for v in self._vertex_model(id)["versions"].values()], query)

    def _with_deployments(self, version: Json) -> Json:
        deployments = [
            {"endpoint": endpoint["name"], "deployedModelId": item["id"]}
            for endpoint in self.endpoints.values()
            for item in endpoint["deployedModels"]
            if item["model"] == version["name"] and item["modelVersionId"] == version["versionId"]
        ]
        return {**version, **({"deployedModels": deployments} if deployments else {})}

    def _upload(self, project: str, location: str, body: Json) -> Json:
        _only(body, "model", "parentModel")
        model = body["model"]
        _only(model, "displayName", "artifactUri", "containerSpec", "labels", "versionDescription")
        assert all(re.fullmatch(r"[a-z0-9_-]{1,63}", text) for label in model["labels"].items() for text in label)
        if not self.has_model(model["artifactUri"]):
            raise Refusal(400, "INVALID_ARGUMENT", f"There are no files under {model['artifactUri']}.")
        parent = body.get("parentModel", "").rsplit("/", 1)[-1]
        if parent:
            self._vertex_model(parent)

        def finish() -> Json:
            id = parent or self._id()
            name = self._name(location, "models", id)
            versions = self.vertex_models.setdefault(id, {"name": name, "versions": {}})["versions"]
            number = max(versions, default=0) + 1
            versions[number] = {**model, "name": name, "versionId": str(number)}
            return {"model": name, "modelVersionId": str(number)}

        return self._begin(location, "POST models:upload", finish)

    def _delete_vertex(self, project: str, location: str, id: str) -> Json:
        if any("deployedModels" in self._with_deployments(v) for v in self._vertex_model(id)["versions"].values()):
            raise Refusal(400, "FAILED_PRECONDITION", "The Model is deployed, undeploy it first.")

        def finish() -> Json:
            del self.vertex_models[id]
            return {}

        return self._begin(location, "DELETE models", finish)

    def _delete_vertex_version(self, project: str, location: str, id: str, number: str) -> Json:
        versions = self._vertex_model(id)["versions"]
        if int(number) not in versions:
            raise Refusal(404, "NOT_FOUND", "no such version")
        if len(versions) == 1 or "deployedModels" in self._with_deployments(versions[int(number)]):
            raise Refusal(400, "FAILED_PRECONDITION", "The only version, or deployed.")

        def finish() -> Json:
            del versions[int(number)]
            return {}

        return self._begin(location, "DELETE version", finish)

    def _make_endpoint(self, project: str, location: str, body: Json) -> Json:
        _only(body, "displayName")

        def finish() -> Json:
            id = self._id()
            self.endpoints[id] = {**body, "name": self._name(location, "endpoints", id), "deployedModels": []}
            return self.endpoints[id]

        return self._begin(location, "POST endpoints", finish)

    def _patch_endpoint(self, project: str, location: str, id: str, body: Json) -> Json:
        _only(body, "trafficSplit")
        endpoint = self._endpoint(id)
        self._set_split(endpoint, body["trafficSplit"])
        return endpoint

    def _delete_endpoint(self, project: str, location: str, id: str) -> Json:
        if self._endpoint(id)["deployedModels"]:
            raise Refusal(400, "FAILED_PRECONDITION", "The Endpoint has deployed models.")

        def finish() -> Json:
            del self.endpoints[id]
            return {}

        return self._begin(location, "DELETE endpoints", finish)

    def _set_split(self, endpoint: Json, split: Json, new: str = "") -> None:
        ids = {item["id"] for item in endpoint["deployedModels"]} | ({"0"} if new else set())
        if not set(split) <= ids or sum(split.values()) not in (0, 100):
            raise Refusal(400, "INVALID_ARGUMENT", f"traffic_split {split} is not one of {sorted(ids)}")
        endpoint["trafficSplit"] = {new if id == "0" else id: share for id, share in split.items()}

    def _deploy(self, project: str, location: str, id: str, body: Json) -> Json:
        _only(body, "deployedModel", "trafficSplit")
        _only(body["deployedModel"], "model", "displayName", "dedicatedResources")
        endpoint = self._endpoint(id)
        model, _, number = body["deployedModel"]["model"].partition("@")
        versions = self._vertex_model(model.rsplit("/", 1)[-1])["versions"]
        if int(number) not in versions:
            raise Refusal(404, "NOT_FOUND", "no such version")

        def finish() -> Json:
            new = self._id()
            if body.get("trafficSplit"):
                self._set_split(endpoint, body["trafficSplit"], new)
            item = {**body["deployedModel"], "id": new, "model": versions[int(number)]["name"]}
            item |= {"modelVersionId": number, "createTime": f"2030-01-01T00:00:00.{new}Z"}
            # In no order that anybody promised.
            endpoint["deployedModels"].insert(0, item)
            return {"deployedModel": item}

        return self._begin(location, "POST deployModel", finish)

    def _undeploy(self, project: str, location: str, id: str, body: Json) -> Json:
        _only(body, "deployedModelId", "trafficSplit")
        endpoint, gone = self._endpoint(id), body["deployedModelId"]
        if gone not in {item["id"] for item in endpoint["deployedModels"]}:
            raise Refusal(404, "NOT_FOUND", "no such deployed model")
        split = body.get("trafficSplit") or endpoint.get("trafficSplit", {})
        last = len(endpoint["deployedModels"]) == 1
        if split.get(gone) and not last:
            raise Refusal(400, "FAILED_PRECONDITION", "The DeployedModel has traffic.")

        def finish() -> Json:
            self._set_split(endpoint, {} if last else {key: share for key, share in split.items() if key != gone})
            endpoint["deployedModels"] = [item for item in endpoint["deployedModels"] if item["id"] != gone]
            return {}

        return self._begin(location, "POST undeployModel", finish)


def _only(body: Json, *fields: str) -> None:
    if unknown := set(body) - set(fields):
        raise Refusal(400, "INVALID_ARGUMENT", f"Unknown name {sorted(unknown)}: Cannot find field.")


def _filtered(items: list[Json], query: Json) -> list[Json]:
    match = re.fullmatch(r'display_name="([^"]+)"', query.get("filter", ""))
    if match is None:
        raise Refusal(400, "INVALID_ARGUMENT", "List filter is not valid")
    return [item for item in items if item["displayName"] == match[1]]


def _page(key: str, items: list[Json], query: Json) -> Json:
    """Pages of one: every list that has more has a next page. An empty one has no key, as protobuf writes it."""
    start = int(query.get("pageToken", 0))
    more = {"nextPageToken": str(start + 1)} if start + 1 < len(items) else {}
    return ({key: items[start : start + 1]} if items else {}) | more
