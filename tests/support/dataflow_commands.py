"""Runs commands against the stand-in of Dataflow's jobs API."""

from __future__ import annotations

import subprocess
import sys

from tests.servers.dataflow import JobsApi
from tests.support import processes
from tests.support.cloud_storage import StorageEmulator
from tests.support.commands import ROOT
from tests.support.pythons import skip_streams


def flags(api: JobsApi, *more: str) -> list[str]:
    cloud = ["--project", "test-project", "--region", "us-central1", "--temp_location", "gs://bucket/tmp"]
    return ["--runner", "DataflowRunner", *cloud, "--dataflow_endpoint", api.endpoint, "--no_auth", *more]


def run(storage: StorageEmulator, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    skip_streams(command)
    return processes.run(
        [sys.executable, "-m", f"pipelines.{command}", *arguments],
        cwd=ROOT,
        env=storage.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def launched(
    storage: StorageEmulator, api: JobsApi, place: str | None, *parameters: str
) -> subprocess.CompletedProcess[str]:
    """Runs what the image runs, in another folder, with the arguments that a launcher gives.

    Args:
      storage: where templates are written.
      api: the jobs API.
      place: of the template; None runs the command here.
      parameters: of the template.
    """
    given = flags(api)
    options = [f"{name}={value}" for name, value in zip(given[::2], given[1::2], strict=False)]
    labels = '--labels={\n   "goog-dataflow-provided-template-type" : "flex"\n}\n'
    image = "--sdk_container_image=us-docker.pkg.dev/test-project/images/predict:1"
    template = f"--template_location=gs://bucket/staging/template_launches/{place}/job_object"
    launcher = [*options, "--no_auth", labels, image, template] if place is not None else []
    return processes.run(
        [sys.executable, str(ROOT / "flex" / "launch.py"), *launcher, *parameters],
        cwd="/",
        env=storage.env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]
