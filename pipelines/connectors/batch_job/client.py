"""Calls the service of batch prediction jobs that a config names; explains its errors, with what to do about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from inference.job.ai_platform import AiPlatformJobs, AiPlatformJobSettings, project_of
from inference.job.service import BatchJobService
from inference.job.vertex import VertexJobs, VertexJobSettings, parent_of, region_of
from model.cloud import rest
from model.cloud.api import Api, DryApi
from model.cloud.credentials import GoogleAuth
from model.cloud.errors import DeploymentError, ServiceError
from model.cloud.rest import RestApi, is_loopback
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.errors import ConfigError

_AI_PLATFORM = "https://ml.googleapis.com"
_REFUSED = (400, 401, 403, 404)


class JobServiceError(Exception):
    """Raised when a service did not do what it was told, for a reason that may pass. The message is one line."""


def url_of(config: BatchJobConfig) -> str:
    """Returns the address of the service that a config means, without the API's version."""
    if config.url is not None:
        return config.url.rstrip("/").removesuffix("/v1")
    if config.service == "ai_platform":
        return _AI_PLATFORM
    return f"https://{region_of(config.resource)}-aiplatform.googleapis.com"


def is_local(config: BatchJobConfig) -> bool:
    """Tells whether the service is a server on this machine."""
    return is_loopback(url_of(config))


def check_address(config: BatchJobConfig) -> list[str]:
    """Lists what is wrong with the address, the resource and the folder, one line each."""
    try:
        (parent_of if config.service == "vertex" else project_of)(config.resource)
    except ValueError as error:
        return [f"model.{error}"]
    if config.url is not None:
        parts = urlsplit(config.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            return ["model.url: it is not an address; it looks like http://127.0.0.1:8501"]
        if parts.scheme == "http" and not is_local(config) and _sends_token(config):
            return ["model.url: it would carry the access token in the clear; use https://"]
    if not is_local(config) and not config.folder.startswith("gs://"):
        return [
            f"model.folder: the service does not reach {config.folder}; give a folder on gs://, such as gs://bucket/jobs"
        ]
    if config.folder.startswith("gs://") and not re.fullmatch(r"gs://[a-z0-9][\w.-]{1,220}(/.*)?", config.folder):
        return [f"model.folder: {config.folder} is not in a bucket with a valid name"]
    return []


def _sends_token(config: BatchJobConfig) -> bool:
    if config.credentials is not None:
        return config.credentials == "google"
    return (urlsplit(url_of(config)).hostname or "").endswith(".googleapis.com")


def service_of(config: BatchJobConfig, tell: Callable[[str], None], attempts: int = rest.ATTEMPTS) -> BatchJobService:
    """Returns the service that a config means; it is not called yet.

    Args:
      config: of the model.
      tell: takes lines of progress.
      attempts: how often a call is tried that fails for a reason that may pass.

    Raises:
      ValueError: the resource is not a model's name.
    """
    auth = GoogleAuth() if _sends_token(config) else None
    return _service(
        config, RestApi(f"{url_of(config)}/v1", auth, timeout=config.deadline_s, tell=tell, attempts=attempts)
    )


def dry_service_of(config: BatchJobConfig) -> BatchJobService:
    """Returns the service that a config means, for what is told of it without a call.

    Raises:
      ValueError: the resource is not a model's name.
    """
    return _service(config, DryApi(f"{url_of(config)}/v1", []))


def _service(config: BatchJobConfig, api: Api) -> BatchJobService:
    if config.service == "ai_platform":
        return AiPlatformJobs(
            api,
            AiPlatformJobSettings(
                model=config.resource,
                region=config.region or "",
                key_output=config.key_output or "",
                max_workers=config.max_replicas,
                batch_size=config.batch_size,
                signature=config.signature,
                runtime_version=config.runtime_version,
                instances_format=config.instances_format,
            ),
        )
    return VertexJobs(
        api,
        VertexJobSettings(
            model=config.resource,
            key_field=config.key_field,
            machine_type=config.machine_type,
            starting_replicas=config.starting_replicas,
            max_replicas=config.max_replicas,
            accelerator_type=config.accelerator_type,
            accelerator_count=config.accelerator_count,
            batch_size=config.batch_size,
            service_account=config.service_account,
            instances_format=config.instances_format,
        ),
    )


@contextmanager
def explained(config: BatchJobConfig) -> Iterator[None]:
    """Makes what a service raises in the block an error for the person who runs the command.

    Raises:
      ConfigError: it refuses the caller or the order: the config, the model or the rights are to be mended.
      JobServiceError: it is away, or has no room.
    """
    try:
        yield
    except ServiceError as error:
        advice = _advice(config, error)
        if error.status in _REFUSED:
            raise ConfigError([f"model: {error}{advice}"]) from None
        raise JobServiceError(f"{error}{advice}") from None
    except DeploymentError as error:
        raise ConfigError([f"model: {error}"]) from None


def _advice(config: BatchJobConfig, error: ServiceError) -> str:
    project = config.resource.split("/")[1]
    where = f"project {project}" + (f", {region_of(config.resource)}" if config.service == "vertex" else "")
    if error.status in (401, 403) and is_local(config):
        return ""
    if error.status == 401:
        return "; run 'gcloud auth application-default login', or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
    if error.status == 403:
        role = "roles/aiplatform.user" if config.service == "vertex" else "roles/ml.developer"
        return f"; give the caller {role} in {where}, and enable the API there"
    if error.status == 404:
        return f"; look whether model.resource is right ({where}), and whether the model is there"
    if error.status == 429:
        return f"; the quota of {where} is used up: run the same command again later, or ask for more quota"
    if error.status is None and config.url is not None:
        return "; start the server (make serve), or check model.url"
    return ""
