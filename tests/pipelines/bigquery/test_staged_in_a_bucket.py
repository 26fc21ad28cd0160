"""Batch runs into BigQuery whose shards are staged in Cloud Storage, against emulators of both.

The emulator of BigQuery reads a folder in place of buckets: a proxy copies what a load job is to read into it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.bigquery_emulator import DATASET, Emulator, bigquery_emulator
from tests.servers.rest_proxy import RestProxy, rest_proxy_to
from tests.support import ledger, processes
from tests.support.cloud_storage import StorageEmulator, cloud_storage
from tests.support.commands import ROOT

STAGE = "stage/"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with bigquery_emulator() as made:
        yield made


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageEmulator]:
    with cloud_storage(tmp_path_factory.mktemp("account")) as made:
        yield made


@pytest.fixture
def rest(emulator: Emulator, bucket: StorageEmulator) -> Iterator[RestProxy]:
    with rest_proxy_to(emulator.rest) as proxy:

        def copied(method: str, path: str, body: bytes) -> None:
            if loads(method, path, body):
                bucket.download(STAGE, emulator.buckets / "bucket")

        proxy.refuse = copied
        yield proxy


def loads(method: str, path: str, body: bytes) -> list[str]:
    """Lists the files that a request has BigQuery load."""
    if method != "POST" or "/jobs" not in path or path.startswith("/upload/"):
        return []
    found: list[str] = json.loads(body)["configuration"].get("load", {}).get("sourceUris", [])
    return found


def config_for(folder: Path, table: str, rows: list[ledger.Row]) -> str:
    source = ledger.write_rows(folder / "in.csv", "csv", rows)
    path = Path(ledger.write_config(folder, "csv", str(source)))
    config: dict[str, Any] = json.loads(path.read_text())
    config["output"] = {"type": "bigquery", "table": f"{DATASET}.{table}", "staging": f"gs://bucket/{STAGE}{table}"}
    path.write_text(json.dumps(config))
    return str(path)


def start(config: str, hosts: dict[str, str], module: str = "batch", *arguments: str) -> subprocess.Popen[str]:
    return processes.start(
        [sys.executable, "-m", f"pipelines.{module}", "--config", config, "--json", *arguments],
        cwd=ROOT,
        env=hosts,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def hosts_of(emulator: Emulator, bucket: StorageEmulator, rest: RestProxy) -> dict[str, str]:
    return {**bucket.env, "BIGQUERY_EMULATOR_HOST": rest.host, "BIGQUERY_STORAGE_EMULATOR_HOST": emulator.grpc}


def keys(emulator: Emulator, table: str) -> Counter[str]:
    return Counter(row[ledger.KEY] for row in emulator.rows(table))


def test_the_job_loads_the_shards_from_the_bucket_and_they_are_removed(
    emulator: Emulator, bucket: StorageEmulator, rest: RestProxy, tmp_path: Path
) -> None:
    good, bad = ledger.births(2000, 1), [{**row, "is_male": None} for row in ledger.births(3, 2, "x")]
    process = start(config_for(tmp_path, "staged", good + bad), hosts_of(emulator, bucket, rest))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    summary = json.loads(out)
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (2003, 2000, 3)
    assert keys(emulator, "staged") == Counter(row[ledger.KEY] for row in good)
    [loaded] = [uris for uris in (loads(*request) for request in rest.seen) if uris]
    assert all(uri.startswith(f"gs://bucket/{STAGE}staged") and uri.endswith(".parquet") for uri in loaded)
    assert [name for name in bucket.names(f"{STAGE}staged") if not name.endswith(".manifest.json")] == []


def test_replayed_rows_are_loaded_from_the_bucket(
    emulator: Emulator, bucket: StorageEmulator, rest: RestProxy, tmp_path: Path
) -> None:
    """The dead letters are in the bucket, too: beside the staged files, as by default."""
    good, bad = ledger.births(20, 1), [{**row, "is_male": None} for row in ledger.births(3, 2, "x")]
    config = config_for(tmp_path, "replayed", good + bad)
    hosts = hosts_of(emulator, bucket, rest)
    dead = '--set=dead_letters={"max_fraction": 1}'
    mend = f"--set=source.defaults={json.dumps({**ledger.DEFAULTS, 'is_male': 'Unknown'})}"
    for module, more, account in (("batch", [], (23, 20, 3)), ("replay", [mend], (3, 3, 0))):
        process = start(config, hosts, module, dead, *more)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        summary = json.loads(out)
        assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == account
    assert keys(emulator, "replayed") == Counter(row[ledger.KEY] for row in good + bad)
    assert len([uris for uris in (loads(*request) for request in rest.seen) if uris]) == 2
    assert [name for name in bucket.names(f"{STAGE}replayed") if not name.endswith(".manifest.json")] == []


@pytest.mark.parametrize("when", ["before the job", "after it"])
def test_a_run_that_is_killed_beside_its_job_is_finished_by_the_next(
    emulator: Emulator, bucket: StorageEmulator, rest: RestProxy, tmp_path: Path, when: str
) -> None:
    table = f"killed_{when.replace(' ', '_')}"
    hosts = hosts_of(emulator, bucket, rest)
    rows = ledger.births(500, 3)
    config = config_for(tmp_path, table, rows)
    killed: list[subprocess.Popen[str]] = []
    copied = rest.refuse

    def before(method: str, path: str, body: bytes) -> Any:
        if loads(method, path, body) and killed and when == "before the job":
            killed.pop().send_signal(signal.SIGKILL)
            return 503, {"error": {"code": 503, "message": "killed"}}
        return copied(method, path, body)

    def after(method: str, path: str) -> Any:
        if rest.seen and loads(*rest.seen[-1]) and killed and when == "after it":
            killed.pop().send_signal(signal.SIGKILL)
        return None

    rest.refuse, rest.lose = before, after
    first = start(config, hosts)
    killed.append(first)
    first.communicate(timeout=300)
    assert first.returncode == -signal.SIGKILL
    early = start(config, hosts)
    assert "is in use by run" in early.communicate(timeout=300)[1]
    assert early.returncode == 2
    # Three minutes later.
    for name in bucket.names(STAGE):
        if ".lock-" in name:
            bucket.delete(name)
    again = start(config, hosts)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert json.loads(out)["rows_written"] == 500
    assert keys(emulator, table) == Counter(row[ledger.KEY] for row in rows)
    assert [name for name in bucket.names(f"{STAGE}{table}") if not name.endswith(".manifest.json")] == []
