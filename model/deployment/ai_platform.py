"""Makes model and version on AI Platform Prediction, by its REST API v1.

Reference: https://cloud.google.com/ai-platform/prediction/docs/reference/rest
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from model.cloud.api import PRESENT, Api, Json
from model.cloud.errors import ServiceError, SettingError

HOST = "https://ml.googleapis.com"
FRAMEWORK = "TENSORFLOW"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}", re.ASCII)

_REGIONAL_HOST = re.compile(r"([a-z0-9-]+)-ml\.googleapis\.com", re.ASCII)
_UNSETTLED = ("CREATING", "UPDATING", "DELETING")


@dataclass(frozen=True)
class AiPlatformSettings:
    """Describes the model and version to create on AI Platform.

    Attributes:
      project: the Google Cloud project.
      name: name of the model.
      version: its version's name.
      region: where the model is.
      runtime_version: of AI Platform, which has TensorFlow's number.
      python_version: of that runtime.
      machine_type: machine type of the nodes.
      default: make the version the model's default.
    """

    project: str
    name: str
    version: str
    region: str
    runtime_version: str
    python_version: str
    machine_type: str
    default: bool


def region_of(url: str | None, region: str | None) -> str:
    """Returns the region, which a regional host has in its name.

    Raises:
      SettingError: the two differ.
    """
    match = _REGIONAL_HOST.fullmatch(urlsplit(url or HOST).hostname or "")
    if match and region and match[1] != region:
        raise SettingError(f"--url {url} is the host of {match[1]}, --region is {region}")
    return region or (match[1] if match else "us-central1")


class AiPlatform:
    """Makes and deletes one version of a model.

    Args:
      api: the service.
      settings: the model and version to create or delete.
      did: takes what was done: ("version v1", "created").
    """

    def __init__(self, api: Api, settings: AiPlatformSettings, did: Callable[[str, str], None]) -> None:
        self._api, self._settings, self._did = api, settings, did
        self._models = f"projects/{settings.project}/models"
        self._model = f"{self._models}/{settings.name}"
        self._version = f"{self._model}/versions/{settings.version}"

    def create(self, uri: str, upload: Callable[[], None]) -> str:
        """Makes what is not there.

        Args:
          uri: where the SavedModel goes.
          upload: puts it there; called when nothing speaks against it.

        Returns:
          The version's resource name.

        Raises:
          SettingError: something else is there under these names.
          ServiceError: the service refused or failed.
        """
        settings = self._settings
        model = self._api.get(self._model)
        version = self._find_version(uri) if model is not None else None
        if model is not None:
            self._check_region(model)
        upload()
        _, made = self._api.ensure(model, lambda: self._api.get(self._model), self._make_model)
        self._did(f"model {settings.name}", "created" if made else "exists")
        ready, made = self._api.ensure(version, lambda: self._find_version(uri), lambda: self._make_version(uri))
        self._did(f"version {settings.version}", "created" if made else "exists")
        if settings.default and not ready.get("isDefault"):
            when = "if it is not the default yet"
            self._api.send("POST", f"{self._version}:setDefault", {}, repeatable=True, when=when)
            self._did(f"version {settings.version}", "made the default")
        return self._version

    def delete(self, uri: str) -> bool:
        """Deletes the version and, if it was the last one, the model.

        Args:
          uri: where the SavedModel of the version is.

        Returns:
          Whether nothing needs the files at the uri any more.

        Raises:
          SettingError: the version is another model's, or the default while there are others.
          ServiceError: the service refused or failed.
        """
        settings = self._settings
        if self._api.get(self._model, dry={}) is None:
            self._did(f"model {settings.name}", "not there")
            return True
        assumed = [{"name": self._version, "deploymentUri": uri}]
        versions = {
            str(version.get("name", "")).rsplit("/", 1)[-1]: version
            for version in self._api.list_all(f"{self._model}/versions", "versions", {"pageSize": "100"}, dry=assumed)
        }
        version = versions.pop(settings.version, None)
        if version is None:
            self._did(f"version {settings.version}", "not there")
        else:
            self._check_origin(version, uri)
            if version.get("isDefault") and versions:
                raise SettingError(
                    f"version {settings.version} is the default of model {settings.name}, which has others "
                    f"({', '.join(sorted(versions)[:10])}): deploy one of them with --default first"
                )
            gone = self._gone(self._version, f"deleting version {settings.version}")
            self._did(f"version {settings.version}", gone)
        if versions:
            self._did(f"model {settings.name}", f"kept, it has {len(versions)} other version(s)")
        else:
            self._did(
                f"model {settings.name}",
                self._gone(self._model, f"deleting model {settings.name}", "if no version is left"),
            )
        return True

    def _gone(self, path: str, doing: str, when: str = PRESENT) -> str:
        operation = self._api.delete(path, when=when)
        if operation is None:
            return "not there"
        self._api.wait(operation, doing)
        return "deleted"

    def _make_model(self) -> Json:
        settings = self._settings
        return self._api.send("POST", self._models, {"name": settings.name, "regions": [settings.region]})

    def _make_version(self, uri: str) -> Json:
        body = {"name": self._settings.version, **self._wanted(uri)}
        operation = self._api.send("POST", f"{self._model}/versions", body, dry={"response": body})
        return self._api.wait(operation, f"creating version {self._settings.version}")

    def _wanted(self, uri: str) -> dict[str, Any]:
        settings = self._settings
        return {
            "deploymentUri": uri,
            "runtimeVersion": settings.runtime_version,
            "framework": FRAMEWORK,
            "pythonVersion": settings.python_version,
            "machineType": settings.machine_type,
        }

    def _find_version(self, uri: str) -> Json | None:
        """The version, once it is settled, if it is the one that would be made."""
        version = self._api.get(self._version)
        if version is None:
            return None
        self._check_origin(version, uri)
        if version.get("state") in _UNSETTLED:
            version = self._api.until(
                lambda: self._api.get(self._version),
                lambda got: got is None or got.get("state") not in _UNSETTLED,
                f"waiting for version {self._settings.version}, which is {str(version['state']).lower()},",
            )
            if version is None:
                return None
        if version.get("state") == "FAILED":
            raise ServiceError(
                f"version {self._settings.version} is there, but failed: {version.get('errorMessage') or 'no reason'}; "
                "delete it with --delete, then run again"
            )
        differing = [
            f"{key} {version[key]}, not {wanted}"
            for key, wanted in self._wanted(uri).items()
            if key != "deploymentUri" and version.get(key, wanted) != wanted
        ]
        if differing:
            raise SettingError(
                f"version {self._settings.version} of model {self._settings.name} exists with {'; '.join(differing)}: "
                "use another --version, or delete it with --delete"
            )
        return version

    def _check_origin(self, version: Json, uri: str) -> None:
        origin = str(version.get("deploymentUri") or "").rstrip("/")
        if origin != uri:
            raise SettingError(
                f"version {self._settings.version} of model {self._settings.name} exists and is another one: its "
                f"deploymentUri is {origin or 'unknown'}, not {uri}; use another --version"
            )

    def _check_region(self, model: Json) -> None:
        regions = model.get("regions") or []
        if regions and self._settings.region not in regions:
            raise SettingError(
                f"model {self._settings.name} is in {', '.join(regions)}, not in {self._settings.region}: "
                "use another --region or --name"
            )
