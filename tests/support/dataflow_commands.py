"""Runs commands against the stand-in of Dataflow's jobs API."""

from __future__ import annotations

import subprocess
import sys

from tests.servers.dataflow import JobsApi
from tests.support import processes
from tests.support.cloud_storage import StorageEmulator
from tests.support.commands import ROOT


def flags(api: JobsApi, *more: str) -> list[str]:
    cloud = ["--project", "test-project", "--region", "us-central1", "--temp_location", "gs://bucket/tmp"]
    return ["--runner", "DataflowRunner", *cloud, "--dataflow_endpoint", api.endpoint, "--no_auth", *more]


def run(storage: StorageEmulator, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return processes.run(
        [sys.executable, "-m", f"pipelines.{command}", *arguments],
        cwd=ROOT,
        env=storage.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]
