"""Steps of a job as Flex templates, launched as Google's launcher does, run by a stand-in of Dataflow."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.dataflow import Job, JobsApi, jobs_api
from tests.support.cloud_storage import StorageEmulator, cloud_storage
from tests.support.commands import ROOT
from tests.support.dataflow_commands import errors, launched
from tests.support.job_server import JobServer, job_server
from tests.support.waiting import wait_until

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageEmulator]:
    with cloud_storage(tmp_path) as emulator:
        emulator.put("in/births.csv", (ROOT / "data" / "births-nc-2001.csv").read_bytes())
        for file in (ROOT / "model" / "trained" / "v1").rglob("*"):
            if file.is_file():
                emulator.put(f"models/v1/{file.relative_to(ROOT / 'model/trained/v1')}", file.read_bytes())
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
        yield emulator


@pytest.fixture
def api(storage: StorageEmulator) -> Iterator[JobsApi]:
    with jobs_api(storage.env) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[JobServer]:
    with job_server(tmp_path) as server:
        yield server


@pytest.fixture
def launch(storage: StorageEmulator, api: JobsApi, server: JobServer, tmp_path: Path) -> Launch:
    """Runs a step: what its launcher, or a container, calls."""
    config = json.loads((ROOT / "configs" / "natality-job.json").read_text())
    model = server.model(tmp_path, signature_from="gs://bucket/models/v1") | {"folder": "gs://bucket/jobs"}
    places: dict[str, Any] = {"output": "gs://bucket/out/p", "dead_letters": "gs://bucket/out/d"}
    config |= {name: {**config[name], "path": path} for name, path in places.items()}
    config |= {"source": {**config["source"], "path": "gs://bucket/in/*.csv"}, "model": model}
    storage.put("configs/job.json", json.dumps(config).encode())

    def run(step: str, *, template: bool = False) -> subprocess.CompletedProcess[str]:
        parameters = ["--config=gs://bucket/configs/job.json", f"--step={step}"]
        return launched(storage, api, step if template else None, *parameters)

    return run


def ended(storage: StorageEmulator, api: JobsApi, place: str) -> Job:
    """A job of the template that a launcher wrote, at its end."""
    job = api.start_template(storage.read(f"staging/template_launches/{place}/job_object"))
    wait_until(lambda: job.state != 2, "the job's end")
    return job


def test_prepare_and_join_on_dataflow(
    storage: StorageEmulator, api: JobsApi, server: JobServer, launch: Launch
) -> None:
    """Each may be launched again: rows are prepared, and the job is paid for, once."""
    early = launch("join", template=True)
    assert early.returncode == 2
    assert "--step join: nothing is prepared for this config" in errors(early)[0]
    for attempt in range(2):
        done = launch("prepare", template=True)
        assert done.returncode == 0, done.stderr
        assert ("prepared already: " in done.stderr) is bool(attempt)
        job = ended(storage, api, "prepare")
        assert job.state == 3, job.message
        prepared = [name for name in storage.names("jobs/") if "/instances/" in name]
        assert prepared
        assert not [name for name in storage.names("jobs/") if "/unfinished/" in name or "lock" in name]
    early = launch("join", template=True)
    assert early.returncode == 2
    assert "--step join: no job was submitted for this config" in errors(early)[0]
    for step in ("submit", "submit", "wait"):
        done = launch(step)
        assert done.returncode == 0, done.stderr
    assert len(server.jobs()) == 1
    assert storage.names("out/") == []
    for _ in range(2):
        done = launch("join", template=True)
        assert done.returncode == 0, done.stderr
        job = ended(storage, api, "join")
        assert job.state == 3, job.message
        manifest = json.loads(storage.read("out/.p.manifest.json"))
        assert (manifest["rows_read"], manifest["rows_written"]) == (1_450, 1_450)
        shards = [name for name in storage.names("out/p-") if name.endswith(".csv")]
        assert sum(len(storage.read(name).splitlines()) - 1 for name in shards) == 1_450
    assert len(server.jobs()) == 1


def test_two_preparations_at_once(storage: StorageEmulator, api: JobsApi, launch: Launch) -> None:
    """The one that comes later fails: what the first has prepared may have been submitted."""
    templates = []
    for _ in range(2):
        done = launch("prepare", template=True)
        assert done.returncode == 0, done.stderr
        templates.append(storage.read("staging/template_launches/prepare/job_object"))
    jobs = [api.start_template(templates[0])]
    wait_until(lambda: jobs[0].state != 2, "the first job's end")
    before = {name: storage.read(name) for name in storage.names("jobs/") if "/instances/" in name}
    jobs.append(api.start_template(templates[1]))
    wait_until(lambda: jobs[1].state != 2, "the second job's end")
    assert [job.state for job in jobs] == [3, 4]
    assert "another run has prepared these rows meanwhile" in jobs[1].message
    assert {name: storage.read(name) for name in storage.names("jobs/") if "/instances/" in name} == before
