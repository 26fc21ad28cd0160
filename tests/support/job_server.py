"""Plays the services of batch prediction jobs in this process, and makes the configs that use it."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from model.serving.app import create_app
from model.serving.connections import Connections
from model.serving.jobs.options import JobOptions
from model.serving.models import Models
from model.serving.options import Options, ServedModel
from model.serving.service import Service
from tests.support.ledger import MODEL, write_config
from tests.support.waiting import wait_until

VERTEX = "projects/p/locations/us-central1"


@dataclass(frozen=True)
class JobServer:
    """A server that runs jobs.

    Attributes:
      url: its address.
    """

    url: str

    def jobs(self, service: str = "vertex") -> list[dict[str, Any]]:
        """The jobs that were submitted, as the service tells them."""
        path, key = ("projects/p/jobs", "jobs")
        if service == "vertex":
            path, key = f"{VERTEX}/batchPredictionJobs", "batchPredictionJobs"
        with urllib.request.urlopen(f"{self.url}/v1/{path}", timeout=20) as answer:
            return list(json.load(answer)[key])

    def model(self, folder: Path, service: str = "vertex", **settings: Any) -> dict[str, Any]:
        """The model of a config whose jobs run here."""
        of_service: dict[str, Any] = {"resource": f"{VERTEX}/models/default"}
        if service == "ai_platform":
            of_service = {
                "resource": "projects/p/models/default",
                "region": "us-central1",
                "key_input": "row_key",
                "key_output": "row_key_out",
            }
        return {
            "type": "batch_job",
            "service": service,
            "url": self.url,
            "folder": str(folder / "jobs"),
            "signature_from": MODEL,
            "poll_s": 0.2,
            **of_service,
            **settings,
        }


@contextmanager
def job_server(
    folder: Path, model: str = MODEL, more: Mapping[str, str] | None = None, **options: Any
) -> Iterator[JobServer]:
    """Runs a server in a thread while the block runs.

    Args:
      folder: the local folder that jobs may use.
      model: a SavedModel.
      more: further ones by their names.
      options: of jobs, see JobOptions.
    """
    named = tuple(ServedModel(name, path) for name, path in (more or {}).items())
    served = Options(model, more=named, jobs=JobOptions(folders=(str(folder.resolve()),), **options))
    models = Models.of(served)
    models.load()
    service = Service(served, models)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(service, ""), http=Connections(served), lifespan="off", log_config=None)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server listens")
    try:
        yield JobServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(20)
        service.close()
        listener.close()


def config_of(folder: Path, file: Path, model: dict[str, Any], format: str = "csv", **changes: Any) -> str:
    """Writes the config of a run whose model is called by a job; returns its path."""
    path = write_config(folder, format, str(file), **changes)
    content = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps({**content, "model": model}))
    return path
