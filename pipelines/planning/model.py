"""Finds the model that a config names: its signature, its name, and the handler that calls it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

from inference.columns.bound import ColumnMap
from inference.errors import BindingError, EndpointError
from inference.saved_model import files as model_files
from model import rows
from model.errors import ModelError
from model.hosts import is_loopback
from model.outside import outside_operations
from model.quiet import quiet_imports
from model.runtime.load import planned
from model.signature import choose_signature, read_meta_graph, signatures_of
from model.specs import Signature
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.model import EndpointConfig, SavedModelConfig
from pipelines.plan import PlannedModel
from pipelines.planning.told_signature import told_signature

if TYPE_CHECKING:
    from inference.endpoint.client import Endpoint
    from inference.endpoint.handler import EndpointHandler
    from inference.saved_model.handler import SavedModelHandler
    from inference.saved_model.loader import ModelLoader


ModelConfig = SavedModelConfig | EndpointConfig | BatchJobConfig


def find(config: ModelConfig, problems: list[str], *, offline: bool = False) -> PlannedModel | None:
    """Looks at a model; what is wrong with it is added to `problems`.

    Args:
      config: what the config says.
      problems: gets one line for each mistake.
      offline: do not connect to servers.
    """
    if isinstance(config, SavedModelConfig):
        try:
            path = model_files.resolve(config.path, config.version)
            meta_graph = read_meta_graph(path, model_files.read_bytes)
            signature = choose_signature(signatures_of(meta_graph), config.signature, path)
            problem = rows.problem(signature)
            if problem is not None:
                problems.append(f"model: {problem}")
                return None
            runtime, reason = planned(meta_graph, signature, path, config.runtime)
            outside = outside_operations(meta_graph)
            return PlannedModel(config, path, rows.with_rows(signature), outside, runtime, reason)
        except ModelError as error:
            problems.append(f"model: {error}")
            return None
    if isinstance(config, BatchJobConfig):
        # Imported only for jobs: its HTTP client takes a while.
        from pipelines.planning import batch_job

        return batch_job.find(config, problems, offline=offline)
    return _find_endpoint(config, problems, offline)


def _find_endpoint(config: EndpointConfig, problems: list[str], offline: bool) -> PlannedModel | None:
    try:
        found = endpoint(config)
        _check_address(found)
        obstacles = [*_unreadable(found), *([] if offline else _unreachable(found))]
        problems += obstacles
        if not obstacles or config.signature_from or config.inputs:
            signature = _signature(config, found)
            return PlannedModel(config, found.name, signature)
    except ModelError as error:
        problems.append(f"model.signature_from: {error}")
    except ValueError as error:
        problems.append(f"model.{error}")
    except BindingError as error:
        problems += error.problems
    except EndpointError as error:
        problems.append(f"model: {error}")
    return None


def _check_address(found: Endpoint) -> None:
    """Raises ValueError: the address is wrong."""
    if found.protocol != "tf_serving_grpc":
        found.make_protocol()
        return
    # Its messages take a while to import, for which a mistake should not wait.
    from inference.endpoint.protocols.urls import grpc_address, version_number

    grpc_address(found.target.url)
    version_number(found.target)


def _unreadable(found: Endpoint) -> list[str]:
    """What is wrong with the file of certificates."""
    from inference.endpoint.transports import trusted

    try:
        trusted(found.ca_file)
    except ssl.SSLError:
        return [f"model.ca_file: {found.ca_file} has no certificates in PEM"]
    except OSError as error:
        return [f"model.ca_file: {found.ca_file}: {error.strerror or error}"]
    return []


def endpoint(config: EndpointConfig) -> Endpoint:
    """Returns the endpoint that a config means. Raises ValueError: a header cannot be sent."""
    from inference.endpoint.client import Endpoint
    from inference.endpoint.protocols.base import Target
    from inference.endpoint.retries import ModelServerRetries
    from model.secrets import Secret

    target = Target(
        url=config.url,
        resource=config.resource,
        model=config.model,
        version=config.version,
        label=config.label,
        signature=config.signature,
        rows=config.body == "rows",
        raw=config.body == "raw",
        binary=config.body == "binary",
    )
    return Endpoint(
        protocol=config.protocol,
        target=target,
        max_in_flight=config.max_in_flight,
        timeout_s=config.timeout_s,
        connect_timeout_s=config.connect_timeout_s,
        retry_limits=ModelServerRetries(config.max_attempts, config.deadline_s),
        max_request_bytes=config.max_request_bytes,
        headers={name: Secret(value.get_secret_value()) for name, value in config.headers.items()},
        google_credentials=None if config.credentials is None else config.credentials == "google",
        ca_file=config.ca_file,
    )


def exposed(config: ModelConfig) -> list[str]:
    """Returns what to say of credentials that go to a server on another machine unencrypted."""
    if not isinstance(config, EndpointConfig):
        return []
    try:
        found = endpoint(config)
        readable = found.unencrypted
    except ValueError:
        return []
    if not readable:
        return []
    secure = "grpcs://" if config.protocol == "tf_serving_grpc" else "https://"
    return [f"warning: model.url: its {readable} can be read by others on the way to {found.name}: use {secure}"]


def _signature(config: EndpointConfig, found: Endpoint) -> Signature:
    from inference.endpoint.retries import ModelServerRetries

    signature = told_signature(config)
    if signature is None:
        from inference.endpoint.remote_signature import ask_signature

        with quiet_imports():
            found.make_protocol()
        # A person waits for the answer.
        signature = ask_signature(replace(found, retry_limits=ModelServerRetries(max_attempts=3, deadline_s=20)))
    from inference.endpoint.remote_signature import check_inputs

    check_inputs(signature)
    return signature


def _unreachable(found: Endpoint) -> list[str]:
    """Whether nothing listens at the endpoint's address. Where a proxy is between, that cannot be told."""
    from inference.endpoint.transports import address

    url = found.target.url
    if url is None:
        return []
    parts = address(url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    host = parts.hostname or ""
    if getproxies() and not is_loopback(host):
        return []
    try:
        socket.create_connection((host, port), timeout=found.connect_timeout_s).close()
    except socket.gaierror:
        return [f"model.url: there is no host {host}; check the address"]
    except OSError as error:
        reason = error.strerror or "no answer in time"
        said = f"cannot connect to {host}:{port} ({reason.lower()})"
        return [f"model.url: {said}; start the server, or check the address"]
    return []


def make_handler(
    model: PlannedModel,
    *,
    columns: ColumnMap,
    defaults: dict[str, Any],
    encodings: dict[str, str] | None = None,
    max_rows: int,
    max_bytes: int | None = None,
    model_version: bool,
    outputs: Collection[str] | None = None,
    gather: bool = True,
    follow: bool = False,
) -> SavedModelHandler | EndpointHandler:
    """Makes the one object that decides how the model is called.

    Args:
      model: as it was found.
      columns: see the handlers.
      defaults: see the handlers.
      encodings: see the handlers.
      max_rows: in a call.
      max_bytes: in a call of a SavedModel; None for the handler's default.
      model_version: see the handlers.
      outputs: of the model, that are needed; None for all.
      gather: see the handlers.
      follow: whether newer versions replace the model, where the config wants the latest.
    """
    options: dict[str, Any] = {
        "columns": columns,
        "defaults": defaults,
        "encodings": encodings,
        "max_batch_size": max_rows,
        "model_version": model_version,
        "gather": gather,
    }
    if isinstance(model.config, SavedModelConfig):
        from inference.saved_model.handler import SavedModelHandler

        options |= {"max_bytes": max_bytes} if max_bytes else {}
        loader = _loader(model)
        options |= {"runtime": loader.runtime, "op_libraries": loader.op_libraries}
        options["outputs"] = outputs
        if follow and model.config.version == model_files.LATEST:
            options |= {"version": model_files.LATEST, "follow_s": model.config.refresh_s}
            return SavedModelHandler(model.config.path, model.signature.name, **options)
        return SavedModelHandler(model.path, model.signature.name, **options)
    assert isinstance(model.config, EndpointConfig), "a batch prediction job has no handler"
    from inference.endpoint.handler import EndpointHandler

    wanted = tuple(
        spec
        for spec in model.signature.outputs
        if outputs is None or spec.name in outputs or rows.is_by_row(spec, model.signature)
    )
    return EndpointHandler(endpoint(model.config), replace(model.signature, outputs=wanted), **options)


def loaded_ahead(model: PlannedModel, here: bool) -> AbstractContextManager[None]:
    """Loads the model in a thread, for the first worker of the block that wants it, while the runner starts.

    Args:
      model: as it was found.
      here: whether workers are in this process; for others nothing is loaded.
    """
    if not here or model.runtime != "native":
        return nullcontext()
    return _loader(model).loaded_ahead(model.path, model.signature.name)


def open_library_ahead(model: PlannedModel) -> None:
    """Opens the native runtime's library in a thread, while this one imports Beam."""
    if model.runtime == "native":
        from model.runtime.library import open_ahead

        open_ahead()


def _loader(model: PlannedModel) -> ModelLoader:
    from inference.saved_model.loader import ModelLoader

    assert isinstance(model.config, SavedModelConfig)
    # A native runtime that is only planned may find at its load that it cannot run the model.
    runtime = "python" if model.runtime == "python" else model.config.runtime
    return ModelLoader(runtime, tuple(model.config.op_libraries))
