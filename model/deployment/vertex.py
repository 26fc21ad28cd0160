"""Makes model, endpoint and deployment on Vertex AI, by its REST API v1.

Reference: https://cloud.google.com/vertex-ai/docs/reference/rest
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from model.cloud.api import PRESENT, Api, Json
from model.cloud.errors import ServiceError, SettingError
from model.deployment.traffic import add, remove

IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"
LABEL = "saved-model-sha256"


@dataclass(frozen=True)
class VertexSettings:
    """Describes the model and endpoint to create on Vertex AI.

    Attributes:
      project: the Google Cloud project.
      location: region of model and endpoint.
      name: the model's display name.
      version: what this version is called in descriptions; Vertex AI numbers versions itself.
      endpoint: the endpoint's display name.
      image: container that serves the model.
      machine_type: machine type of the nodes.
      min_replicas: number of nodes at least.
      max_replicas: number of nodes at most.
      traffic: percentage of the endpoint's requests that go to this version.
    """

    project: str
    location: str
    name: str
    version: str
    endpoint: str
    image: str
    machine_type: str
    min_replicas: int
    max_replicas: int
    traffic: int


def host(location: str) -> str:
    """Returns where Vertex AI of a region is."""
    return f"https://{location}-aiplatform.googleapis.com"


class VertexDeployment:
    """Uploads, deploys, undeploys and deletes one version of a model.

    Args:
      api: the service.
      settings: the model and endpoint to create or delete.
      sha256: of the SavedModel's content: how a version is recognised.
      did: takes what was done: ("endpoint births", "created").
    """

    def __init__(self, api: Api, settings: VertexSettings, sha256: str, did: Callable[[str, str], None]) -> None:
        self._api, self._settings, self._did = api, settings, did
        # A label takes 63 characters.
        self._hash = sha256[:40]
        self._parent = f"projects/{settings.project}/locations/{settings.location}"

    def create(self, uri: str, upload: Callable[[], None]) -> str:
        """Makes what is not there.

        Args:
          uri: where the SavedModel goes.
          upload: puts it there; called when nothing speaks against it.

        Returns:
          The endpoint's resource name.

        Raises:
          SettingError: something else is there under these names, or the traffic cannot be split so.
          ServiceError: the service refused or failed.
        """
        settings = self._settings
        model = self._find("models", settings.name)
        version = self._find_version(model)
        endpoint = self._find("endpoints", settings.endpoint)
        deployed = self._deployed(endpoint, version)
        self._split(endpoint, deployed)
        upload()
        ours, made = self._api.ensure(
            version,
            lambda: self._find_version(self._find("models", settings.name)),
            lambda: self._upload(uri, model),
        )
        self._did(f"model {settings.name}", f"{'uploaded' if made else 'exists'}, version {_number(ours)}")
        place, made = self._api.ensure(
            endpoint, lambda: self._find("endpoints", settings.endpoint), self._make_endpoint
        )
        self._did(f"endpoint {settings.endpoint}", "created" if made else "exists")
        path = self._path("endpoints", place)
        there, made = self._api.ensure(
            deployed,
            lambda: self._deployed(self._find("endpoints", settings.endpoint), ours),
            lambda: self._deploy(path, place, ours),
        )
        others = len(place.get("deployedModels") or []) - (not made)
        self._did(
            f"deployment to {settings.endpoint}",
            ("created" if made else self._set_traffic(path, place, there))
            + f", {settings.traffic}% of the requests go to it"
            + (f"; {others} other model(s) stay deployed, and paid for" if others > 0 else ""),
        )
        return path

    def delete(self, uri: str) -> bool:
        """Undeploys and deletes the version, the model if it was its last one, and the endpoint if nothing is left.

        Args:
          uri: where the SavedModel of the version is.

        Returns:
          Whether nothing needs the files at the uri any more.

        Raises:
          SettingError: several models or endpoints have the name.
          ServiceError: the service refused or failed.
        """
        settings = self._settings
        assumed = {"name": f"{self._parent}/models/{{model}}"}
        model = self._find("models", settings.name, dry=[assumed])
        versions = self._versions(model, dry=[{**assumed, "versionId": "{version}", **self._content(uri)}])
        version = next(filter(self._is_ours, versions), None)
        there = {"id": "{deployed model}", "model": assumed["name"], "modelVersionId": "{version}"}
        empty = {"name": f"{self._parent}/endpoints/{{endpoint}}", "deployedModels": [there]}
        endpoint = self._find("endpoints", settings.endpoint, dry=[empty])
        left = self._undeploy(endpoint, version)
        unused = True
        if version is None:
            self._did(f"model {settings.name}", "not there" if model is None else "has no version of this content")
        elif others := self._elsewhere(version, endpoint):
            unused = False
            self._did(f"model {settings.name}", f"kept, version {_number(version)} is deployed to {', '.join(others)}")
        else:
            path = self._path("models", version)
            last = len(versions) == 1
            gone = self._gone(
                path if last else f"{path}@{_number(version)}:deleteVersion",
                "deleting the model",
                "if it is there, and deployed nowhere else; of several versions only this one",
            )
            self._did(f"model {settings.name}", gone if last else f"version {_number(version)} {gone}")
        if endpoint is None:
            self._did(f"endpoint {settings.endpoint}", "not there")
        elif left:
            self._did(f"endpoint {settings.endpoint}", f"kept, {left} other model(s) are deployed to it")
        else:
            gone = self._gone(
                self._path("endpoints", endpoint), "deleting the endpoint", "if nothing else is deployed to it"
            )
            self._did(f"endpoint {settings.endpoint}", gone)
        return unused

    def _find(self, kind: str, name: str, *, dry: list[Json] | None = None) -> Json | None:
        """The model or endpoint of a display name."""
        query = {"filter": f'display_name="{name}"', "pageSize": "100"}
        found = self._api.list_all(f"{self._parent}/{kind}", kind, query, dry=dry or ())
        if len(found) > 1:
            names = ", ".join(_id(item) for item in found[:10])
            raise SettingError(
                f"{len(found)} {kind} in {self._parent} are called {name} ({names}): delete or rename some"
            )
        return found[0] if found else None

    def _versions(self, model: Json | None, *, dry: list[Json] | None = None) -> list[Json]:
        if model is None:
            return []
        path = f"{self._path('models', model)}:listVersions"
        return self._api.list_all(path, "models", {"pageSize": "100"}, dry=dry or ())

    def _find_version(self, model: Json | None) -> Json | None:
        return next(filter(self._is_ours, self._versions(model)), None)

    def _is_ours(self, version: Json) -> bool:
        """Whether a version has the SavedModel's content, served by the image."""
        image = (version.get("containerSpec") or {}).get("imageUri")
        label = (version.get("labels") or {}).get(LABEL)
        # The service shows a model's labels in its versions too: the folder tells them apart.
        folder = str(version.get("artifactUri") or "").rstrip("/")
        return (image, label) == (self._settings.image, self._hash) and folder.endswith(f"-{self._hash[:8]}")

    def _upload(self, uri: str, older: Json | None) -> Json:
        settings = self._settings
        model: Json = {
            "displayName": settings.name,
            **self._content(uri),
            "versionDescription": settings.version,
        }
        body = {"model": model} if older is None else {"parentModel": self._path("models", older), "model": model}
        made = {"model": f"{self._parent}/models/{{model}}", "modelVersionId": "{version}"}
        when = "if it is not there; with parentModel if a model has the name"
        operation = self._api.send("POST", f"{self._parent}/models:upload", body, when=when, dry={"response": made})
        answer = self._api.wait(operation, f"uploading model {settings.name}")
        name, _, number = str(answer.get("model") or "").partition("@")
        return {**model, "name": name, "versionId": answer.get("modelVersionId") or number or "1"}

    def _content(self, uri: str) -> Json:
        image = {"imageUri": self._settings.image}
        return {"artifactUri": uri, "containerSpec": image, "labels": {LABEL: self._hash}}

    def _make_endpoint(self) -> Json:
        body = {"displayName": self._settings.endpoint}
        made = {"name": f"{self._parent}/endpoints/{{endpoint}}"}
        operation = self._api.send("POST", f"{self._parent}/endpoints", body, dry={"response": made})
        return self._api.wait(operation, f"creating endpoint {self._settings.endpoint}")

    def _deploy(self, path: str, endpoint: Json, version: Json) -> Json:
        settings = self._settings
        deployed = {
            "model": f"{self._path('models', version)}@{_number(version)}",
            "displayName": f"{settings.name}-{settings.version}",
            "dedicatedResources": self._resources(),
        }
        split = self._split(endpoint, None)
        body = {"deployedModel": deployed, **({"trafficSplit": split} if split else {})}
        operation = self._api.send("POST", f"{path}:deployModel", body)
        answer = self._api.wait(operation, f"deploying model {settings.name}")
        return dict(answer.get("deployedModel") or {})

    def _resources(self) -> dict[str, Any]:
        return {
            "machineSpec": {"machineType": self._settings.machine_type},
            "minReplicaCount": self._settings.min_replicas,
            "maxReplicaCount": self._settings.max_replicas,
        }

    def _deployed(self, endpoint: Json | None, version: Json | None) -> Json | None:
        """The deployment of the version to the endpoint. Raises SettingError if it is on other machines."""
        found = _deployments(endpoint, version)
        if not found:
            return None
        resources = found[0].get("dedicatedResources") or {}
        machine = (resources.get("machineSpec") or {}).get("machineType", self._settings.machine_type)
        low, high = resources.get("minReplicaCount", 1), resources.get("maxReplicaCount", 1)
        settings = self._settings
        if (machine, low, high) != (settings.machine_type, settings.min_replicas, settings.max_replicas):
            raise SettingError(
                f"the model is deployed to endpoint {settings.endpoint} on {low} to {high} {machine}, not "
                f"{settings.min_replicas} to {settings.max_replicas} {settings.machine_type}: delete it with --delete "
                "first, or use another --endpoint"
            )
        return found[0]

    def _split(self, endpoint: Json | None, deployed: Json | None) -> dict[str, int]:
        """Returns the traffic to set: by id, "0" for what is not deployed yet."""
        split = (endpoint or {}).get("trafficSplit") or {}
        return add(split, str(deployed["id"]) if deployed else "0", self._settings.traffic, self._settings.endpoint)

    def _set_traffic(self, path: str, endpoint: Json, deployed: Json) -> str:
        traffic = self._settings.traffic
        if int((endpoint.get("trafficSplit") or {}).get(str(deployed["id"]), 0)) == traffic:
            return "exists"
        body = {"trafficSplit": self._split(endpoint, deployed)}
        self._api.send("PATCH", path, body, query={"updateMask": "trafficSplit"}, repeatable=True)
        return "traffic changed"

    def _undeploy(self, endpoint: Json | None, version: Json | None) -> int:
        """Undeploys the version; returns how many other models are deployed to the endpoint."""
        ours = _deployments(endpoint, version)
        if endpoint is None:
            return 0
        others = [item for item in endpoint.get("deployedModels") or [] if item not in ours]
        others.sort(key=lambda item: str(item.get("createTime") or ""))
        left = [str(item["id"]) for item in others]
        split = endpoint.get("trafficSplit") or {}
        for item in ours:
            split, before = remove(split, str(item["id"]), left), split
            body: Json = {"deployedModelId": str(item["id"])}
            if split and split != before:
                body["trafficSplit"] = split
            path = f"{self._path('endpoints', endpoint)}:undeployModel"
            try:
                operation = self._api.send("POST", path, body, repeatable=True, when="if it is deployed")
            except ServiceError as error:
                if error.status != 404:
                    raise
                continue
            self._api.wait(operation, f"undeploying model {self._settings.name}")
            self._did(f"model {self._settings.name}", f"undeployed from {self._settings.endpoint}")
        return len(left)

    def _elsewhere(self, version: Json, endpoint: Json | None) -> list[str]:
        """The other endpoints to which the version is deployed."""
        own = _id(endpoint) if endpoint else None
        names = {str(item.get("endpoint") or "").rsplit("/", 1)[-1] for item in version.get("deployedModels") or []}
        return sorted(names - {own})

    def _gone(self, path: str, doing: str, when: str = PRESENT) -> str:
        operation = self._api.delete(path, when=when)
        if operation is None:
            return "not there"
        self._api.wait(operation, doing)
        return "deleted"

    def _path(self, kind: str, resource: Json) -> str:
        """The resource's name with the project as it was asked for: the service answers with its number."""
        return f"{self._parent}/{kind}/{_id(resource)}"


def _id(resource: Json) -> str:
    name = str(resource.get("name") or "").partition("@")[0].rsplit("/", 1)[-1]
    if not name:
        raise ServiceError("the service answered with a resource that has no name")
    return name


def _number(version: Json) -> str:
    return str(version.get("versionId") or "1")


def _deployments(endpoint: Json | None, version: Json | None) -> list[Json]:
    if endpoint is None or version is None:
        return []
    wanted = (_id(version), _number(version))
    found = []
    for item in endpoint.get("deployedModels") or []:
        name, _, number = str(item.get("model") or "").partition("@")
        if (name.rsplit("/", 1)[-1], str(item.get("modelVersionId") or number or "1")) == wanted:
            found.append(item)
    return found
