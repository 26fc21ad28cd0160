"""Jobs on Dataflow: submitted to its jobs API, run as they were staged, and told of. The API is one on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from google.cloud import dataflow_v1beta3
from google.protobuf import json_format

from model import packaged
from tests.servers.dataflow import JobsApi, jobs_api
from tests.support import processes
from tests.support.cloud_storage import StorageEmulator, cloud_storage
from tests.support.commands import ROOT, Command
from tests.support.dataflow_commands import errors, flags, run


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageEmulator]:
    with cloud_storage(tmp_path_factory.mktemp("storage")) as emulator:
        emulator.put("in/births.csv", (ROOT / "data" / "births-nc-2001.csv").read_bytes())
        yield emulator


@pytest.fixture(scope="module")
def api(storage: StorageEmulator) -> Iterator[JobsApi]:
    with jobs_api(storage.env) as server:
        yield server


def batch(storage: StorageEmulator, api: JobsApi, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    places = [f"--set=output.path=gs://bucket/{name}/p", f"--set=dead_letters.path=gs://bucket/{name}/d"]
    return run(storage, "batch", "--set=source.path=gs://bucket/in/*.csv", *places, *flags(api), *more)


@pytest.fixture(scope="module")
def batch_job(storage: StorageEmulator, api: JobsApi) -> dict[str, Any]:
    """The summary of a batch job that has run."""
    done = batch(storage, api, "batch", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_batch_job_is_accounted_for_and_priced(
    storage: StorageEmulator, batch_job: dict[str, Any], tmp_path: Path
) -> None:
    counts = [batch_job[name] for name in ("rows_read", "rows_written", "rows_dead_lettered")]
    assert counts == [1_450, 1_450, 0]
    assert batch_job["ok"]
    assert batch_job["job"] == "2026-01-01_00_00_00-1"
    prices = json.loads((ROOT / "configs" / "prices.json").read_text())["prices"]
    used = {"vcpu_hours": 2.0, "memory_gb_hours": 8.0, "disk_gb_hours": 50.0, "shuffled_gb": 1.0}
    assert {name: batch_job["cost"][name] for name in used} == used
    names = [
        "dataflow_batch_vcpu_hour",
        "dataflow_batch_memory_gb_hour",
        "dataflow_disk_gb_hour",
        "dataflow_shuffle_gb",
    ]
    wanted = sum(prices[name]["amount"] * amount for name, amount in zip(names, used.values(), strict=True))
    assert batch_job["cost"]["amount"] == pytest.approx(wanted, abs=1e-6)
    storage.download("batch/", tmp_path)
    [shard] = (tmp_path / "batch").glob("p-*.csv")
    assert len(shard.read_text().splitlines()) == 1_451


def test_the_job_that_was_submitted(
    storage: StorageEmulator, api: JobsApi, batch_job: dict[str, Any], tmp_path: Path
) -> None:
    job = api.jobs[batch_job["job"]]
    # What Google publishes of the API reads it, and knows all of its fields.
    parsed = dataflow_v1beta3.Job.pb(dataflow_v1beta3.Job())
    json_format.ParseDict(job.proto, parsed)
    assert parsed.name.startswith("natality-")
    assert parsed.labels["app"] == "beam-tf-predict"
    # One process a machine has one copy of the model.
    assert "no_use_multiple_sdk_containers" in parsed.environment.experiments
    assert "use_multiple_sdk_containers" not in parsed.environment.experiments
    storage.download("tmp/", tmp_path)
    [staged] = (tmp_path / "tmp").rglob("pipeline.pb")
    pipeline = beam_runner_api_pb2.Pipeline.FromString(staged.read_bytes())
    assert pipeline.root_transform_ids


def test_the_staged_package_in_an_empty_environment(
    storage: StorageEmulator, batch_job: dict[str, Any], tmp_path: Path
) -> None:
    """Beam's harness installs it so, with pip, beside Beam and what else its image has."""
    storage.download("tmp/", tmp_path)
    archive = next((tmp_path / "tmp").rglob("workflow.tar.gz"))
    with tarfile.open(archive) as file:
        assert any(name.endswith("pipelines/engine/dataflow.py") for name in file.getnames())
    venv.create(tmp_path / "env", with_pip=False)
    target = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target)]
    done = processes.run([sys.executable, *install, str(archive)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = (
        "import os; from model import packaged; import pipelines, inference\n"
        "for name in ('configs/natality.json', 'configs/schema.json', 'configs/prices.json', 'model/trained/v1'):\n"
        "    print(os.path.exists(packaged.find(name)), packaged.find(name))\n"
    )
    found = processes.run(
        [str(tmp_path / "env" / "bin" / "python"), "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"True {target}") for line in lines)


def test_prices_of_ones_own(storage: StorageEmulator, api: JobsApi, tmp_path: Path) -> None:
    """On a terminal or in a pipe: the cost is a line of the summary; a price that is missing is said."""
    price = {"amount": 1.0, "date": "2026-11", "source": "a contract"}
    (tmp_path / "prices.json").write_text(
        json.dumps({"currency": "EUR", "prices": {"dataflow_batch_vcpu_hour": price}})
    )
    done = batch(storage, api, "own", "--prices", str(tmp_path / "prices.json"))
    assert done.returncode == 0, done.stderr
    [line] = [each for each in done.stdout.splitlines() if each.startswith("cost:")]
    assert "2.000 vCPU-h" in line
    assert "no price for dataflow_batch_memory_gb_hour" in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "Invalid JSON"),
        ('{"prices": {"a": {"amount": -1, "date": "2026", "source": "x"}}}', "prices.a.amount: "),
        ('{"prices": {"a": {"amount": 1, "date": "lately", "source": "x"}}}', "prices.a.date: "),
        (None, "there is no such file"),
    ],
)
def test_mistakes_in_prices(command: Command, tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "prices.json").write_text(content)
    result = command("batch", "--prices", str(tmp_path / "prices.json"))
    assert result.code == 2
    assert any(words in line for line in result.errors), result


def test_a_failed_job_is_explained(storage: StorageEmulator, api: JobsApi) -> None:
    api.fails = "Workflow failed. Causes: The zone 'us-central1-a' does not have enough resources available."
    done = batch(storage, api, "failed")
    assert done.returncode == 1
    [error] = errors(done)
    assert "does not have enough resources" in error, done.stderr
    assert "nothing was published" in error


def test_a_job_that_is_refused(storage: StorageEmulator, api: JobsApi) -> None:
    api.refuses = (403, "Dataflow API has not been used in project test-project before or it is disabled.")
    done = batch(storage, api, "refused")
    assert done.returncode == 1
    [error] = errors(done)
    assert "Dataflow API has not been used" in error


def test_what_the_command_line_says_wins(storage: StorageEmulator, api: JobsApi) -> None:
    more = ["--job_name", "mine", "--labels", "team=births", "--experiments", "use_multiple_sdk_containers"]
    api.fails = "stop here"
    batch(storage, api, "mine", *more)
    proto = list(api.jobs.values())[-1].proto
    assert proto["name"] == "mine"
    assert proto["labels"] == {"team": "births", "app": "beam-tf-predict"}
    assert "no_use_multiple_sdk_containers" not in proto["environment"]["experiments"]


def test_a_stream_is_handed_over(storage: StorageEmulator, api: JobsApi) -> None:
    source = {"type": "pubsub", "topic": "projects/test-project/topics/births", "key_attribute": "source_id"}
    output = {"type": "file", "format": "json", "path": "gs://bucket/stream/p"}
    sets = [f"--set=source={json.dumps(source)}", f"--set=output={json.dumps(output)}"]
    sets.append("--set=dead_letters.path=gs://bucket/stream/d")
    done = run(storage, "stream", *sets, *flags(api, "--labels", "team=births"))
    assert done.returncode == 0, done.stderr
    job = list(api.jobs.values())[-1]
    assert job.id in done.stdout
    assert job.proto["type"] == 2
    assert job.proto["name"] == "natality-stream"
    assert job.proto["labels"]["team"] == "births"


def test_packaged_prices_have_dates_and_sources() -> None:
    path = packaged.find("configs/prices.json")
    assert path is not None
    assert os.path.basename(path) == "prices.json"
    for price in json.loads(Path(path).read_text())["prices"].values():
        assert price["source"]
        assert price["date"]
