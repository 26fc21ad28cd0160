"""Batch runs and streams on a Flink cluster: nothing is lost when a machine of it is; workers are other processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.flink_cluster import FlinkCluster, flink_cluster
from tests.servers.kafka import Broker
from tests.support import processes
from tests.support.commands import ROOT
from tests.support.kafka_streams import CONFIG, records, source
from tests.support.serving_process import serving
from tests.support.streams import births, hidden, keys, sets, written
from tests.support.waiting import wait_until

PACKAGED = ROOT / "model" / "trained" / "v1"
WITHIN_S = 300.0


def test_a_port_that_is_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SystemExit, match=f"port {port} of this machine is in use"), flink_cluster(pool_port=port):
            pass


@pytest.fixture
def cluster() -> Iterator[FlinkCluster]:
    """One for each test: a task manager whose jobs had workers of its own may not tell a later stream's to end."""
    with flink_cluster() as made:
        yield made


def start(module: str, *arguments: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    """Starts a command."""
    return processes.start(
        [sys.executable, "-m", f"pipelines.{module}", *arguments],
        cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    """Returns what a command printed, once it has ended well."""
    out, err = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, err[-3000:]
    return out


def rows_on_disk(folder: Path) -> set[str]:
    """Returns the keys of the rows that a stream has written, published or not."""
    files = [*(folder / "out").glob("p-*.csv"), *(folder / "out").glob(".p-*.part")]
    return {line.partition(b",")[0].decode() for path in files for line in path.read_bytes().splitlines()}


def test_a_batch_outlasts_a_task_manager(cluster: FlinkCluster, tmp_path: Path) -> None:
    """All paths are relative to the command's working directory, which no worker has."""
    count = 200_000
    (tmp_path / "births.jsonl").write_bytes(b"\n".join(births(count)))
    with serving(PACKAGED, "--latency-ms", "1000") as server, httpx.Client(base_url=server.rest) as client:
        config = {
            "name": "births",
            "source": {"type": "file", "format": "json", "path": "births.jsonl", "key": "source_id"},
            "model": {
                "type": "endpoint", "protocol": "tf_serving_rest", "url": f"{server.rest}/v1/models/default:predict",
                "signature_from": str(PACKAGED), "max_in_flight": 2,
            },
            "batching": {"max_rows": 5_000},
            "output": {"type": "file", "format": "csv", "path": "out/p"},
            "dead_letters": {"path": "out/d"},
        }  # fmt: skip
        (tmp_path / "births.json").write_text(json.dumps(config))
        flags = [*cluster.flags, *cluster.by_pool, "--parallelism=2"]
        process = start("batch", "--config", "births.json", *flags, "--json", cwd=tmp_path)
        is_asked = lambda: "in_flight 1.0" in client.get("/metrics").text  # noqa: E731
        wait_until(lambda: process.poll() is not None or is_asked(), "the server is asked", WITHIN_S)
        assert process.poll() is None, process.communicate()[1]
        job = cluster.running_job()
        assert len(cluster.hosts_of(job)) == 2
        cluster.kill_task_manager()
        cluster.start_task_manager()
        summary = json.loads(ended(process))
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (count, count, 0)
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(keys(count))
    assert cluster.jobs()[job] == "FINISHED"
    # It was run again at least in part: else nothing of it was killed.
    assert any(task["attempt"] for task in cluster.tasks_of(job))


def test_a_stream_outlasts_a_task_manager(cluster: FlinkCluster, broker: Broker, tmp_path: Path) -> None:
    count = 20_000
    topic = broker.create_topic(2)
    broker.produce(topic, records(count // 2))
    flags = [*cluster.flags, *cluster.by_pool, "--checkpointing_interval=1500"]
    arguments = sets(tmp_path, source=source(broker, topic), batching__max_rows=200)
    out = ended(start("stream", *CONFIG, *arguments, *flags))
    assert "handed over" in out
    job = cluster.running_job()
    wait_until(lambda: len(rows_on_disk(tmp_path)) > 1_000, "rows are written", WITHIN_S)
    [host] = cluster.hosts_of(job)
    cluster.kill_task_manager(cluster.number_of(host))
    cluster.start_task_manager()
    broker.produce(topic, records(count // 2, count // 2))
    wait_until(lambda: keys(count) <= rows_on_disk(tmp_path), "all rows are written", WITHIN_S, every_s=0.5)
    broker.wait_for_committed(f"group-{topic}", topic, count, within_s=WITHIN_S)
    cluster.cancel(job)
    wait_until(lambda: not hidden(tmp_path), "what workers had open is published", WITHIN_S)
    found = Counter(row["source_id"] for row in written(tmp_path))
    assert set(found) == keys(count)


def test_workers_that_task_managers_start(cluster: FlinkCluster, tmp_path: Path) -> None:
    flags = [*cluster.flags, *cluster.by_process]
    paths = ["--set", f"output.path={tmp_path}/out/p", "--set", f"dead_letters.path={tmp_path}/out/d"]
    summary: dict[str, Any] = json.loads(ended(start("batch", *flags, *paths, "--json")))
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (1_450, 1_450, 0)
    assert len(written(tmp_path)) == 1_450
    here = json.loads(ended(start("batch", *[each.replace("/out/", "/here/") for each in paths], "--json")))
    assert here["rows_written"] == 1_450
    (tmp_path / "out").rename(tmp_path / "there")
    there = {row["source_id"]: row["predictions"] for row in written_in(tmp_path / "there")}
    assert there == {row["source_id"]: row["predictions"] for row in written_in(tmp_path / "here")}


def written_in(folder: Path) -> list[dict[str, str]]:
    """Returns the rows of the published files of a folder."""
    (folder.parent / "out").unlink(missing_ok=True)
    (folder.parent / "out").symlink_to(folder)
    return written(folder.parent)
