"""The same on every engine: nothing lost, acknowledged when written, an end in order, nothing left behind."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from tests.servers.flink import flink_job_server
from tests.servers.prism import built_prism
from tests.servers.pubsub_emulator import Emulator, pubsub_emulator
from tests.support import processes
from tests.support.commands import ROOT
from tests.support.serving_process import serving
from tests.support.streams import births, dead_letters, hidden, keys, sets, wait_for_rows, written
from tests.support.waiting import wait_until

ENGINES = ("FnApiRunner", "PrismRunner", "FlinkRunner")
PUBSUB = ["--config", "configs/natality-pubsub.json"]
PACKAGED = ROOT / "model" / "trained" / "v1"
SEED = 2001


@pytest.fixture(scope="module")
def flink() -> Iterator[str]:
    """A job server of Flink's."""
    with flink_job_server() as endpoint:
        yield endpoint


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> list[str]:
    """The flags for an engine."""
    name = request.param
    if name == "FlinkRunner":
        return ["--runner", name, "--job_endpoint", request.getfixturevalue("flink")]
    if name == "PrismRunner":
        built_prism()
    return ["--runner", name]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with pubsub_emulator() as made:
        yield made


@contextlib.contextmanager
def running(module: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A command, ended with the block."""
    process = processes.start(
        [sys.executable, "-m", f"pipelines.{module}", *arguments],
        cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def summary_of(process: subprocess.Popen[str], within_s: float = 120) -> dict[str, Any]:
    """What --json printed at the end."""
    out, err = process.communicate(timeout=within_s)
    assert process.returncode == 0, err[-3000:]
    assert "Traceback" not in err
    return dict(json.loads(out))


def descendants(pid: int) -> set[int]:
    """Processes that a process has started, and those that they have."""
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def wait_until_gone(pids: set[int]) -> None:
    """Waits until processes have ended."""
    wait_until(lambda: not any(map(is_running, pids)), f"{pids} have ended")


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def cpu_seconds(pids: set[int]) -> float:
    """That processes have used."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(of.user + of.system for of in times)


def predictions(rows: list[dict[str, str]]) -> Mapping[str, np.float32]:
    return {row["source_id"]: np.float32(row["predictions"]) for row in rows}


def test_a_stream_predicts_what_a_batch_does_each_message_once(engine: list[str], tmp_path: Path) -> None:
    arguments = sets(tmp_path, source__rate=2000, source__seed=SEED)
    with running("stream", *engine, "--max-messages", "5000", *arguments, "--json") as process:
        wait_for_rows(tmp_path, 10, process)
        started = descendants(process.pid)
        summary = summary_of(process)
    wait_until_gone(started)
    assert engine[1] in summary["runner"]
    counts = (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"])
    assert counts == (5_000, 5_000, 0)
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    rows = written(tmp_path)
    assert Counter(row["source_id"] for row in rows) == Counter(keys(5_000))
    assert hidden(tmp_path) == []

    file = tmp_path / "births.jsonl"
    file.write_bytes(b"\n".join(births(5_000, seed=SEED)))
    config = {
        "name": "births",
        "source": {"type": "file", "format": "json", "path": str(file), "key": "source_id"},
        "model": {"type": "saved_model", "path": "model/trained/v1"},
        "output": {"type": "file", "format": "csv", "path": f"{tmp_path}/batch/p"},
        "dead_letters": {"path": f"{tmp_path}/batch/d"},
    }
    (tmp_path / "batch.json").write_text(json.dumps(config))
    with running("batch", *engine, "--config", f"{tmp_path}/batch.json", "--json") as process:
        summary = summary_of(process)
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (5_000, 5_000, 0)
    (tmp_path / "batch").rename(tmp_path / "out2")
    (tmp_path / "out").rename(tmp_path / "out1")
    (tmp_path / "out2").rename(tmp_path / "out")
    wanted = predictions(written(tmp_path))
    assert len(wanted) == 5_000
    assert predictions(rows) == pytest.approx(wanted, rel=1e-6)


def test_a_killed_stream_loses_nothing_and_its_successor_ends_in_order(
    engine: list[str], emulator: Emulator, tmp_path: Path
) -> None:
    payloads = births(4_000, seed=SEED)
    bad = range(7, 4_000, 400)
    for n in bad:
        payloads[n] = payloads[n][:-9]
    emulator.publish(payloads[:2_000])
    arguments = [*engine, *PUBSUB, *sets(tmp_path, batching__max_rows=200), "--json"]
    with running("stream", *arguments, PUBSUB_EMULATOR_HOST=emulator.host) as process:
        wait_for_rows(tmp_path, 1_000, process)
        emulator.publish(payloads[2_000:3_000])
        started = descendants(process.pid)
        process.kill()
        process.wait()
    wait_until_gone(started)
    acknowledged = emulator.acknowledged()
    before = dead_letters(tmp_path)
    assert acknowledged < 3_000
    with running("stream", *arguments, PUBSUB_EMULATOR_HOST=emulator.host) as process:
        emulator.publish(payloads[3_000:])
        emulator.wait_for_acknowledged(4_000, within_s=120)
        process.send_signal(signal.SIGTERM)
        summary = summary_of(process)
    rows = Counter(row["source_id"] for row in written(tmp_path))
    assert set(rows) == keys(4_000) - {f"b{n:09d}" for n in bad}
    assert set(rows.values()) <= {1, 2}
    dead = [base64.b64decode(dead_letter["payload"]) for dead_letter in dead_letters(tmp_path)]
    assert set(dead) == {payloads[n] for n in bad}
    assert before == []
    assert summary["rows_read"] == summary["rows_written"] + summary["rows_dead_lettered"]
    # The second took what the first had not acknowledged.
    assert 4_000 - acknowledged <= summary["rows_read"]
    assert hidden(tmp_path) == []


def test_a_stream_outlasts_the_timeout_of_its_job_server(engine: list[str], tmp_path: Path) -> None:
    """Beam's is five minutes, after which a job of Prism's could not be watched any more."""
    arguments = [*sets(tmp_path, source__rate=100), "--duration", "12", "--job_server_timeout", "4", *engine, "--json"]
    with running("stream", *arguments) as process:
        summary = summary_of(process)
    assert summary["seconds"] > 10
    assert summary["rows_written"] == len(written(tmp_path)) > 1_000


def test_prism_waits_without_working(tmp_path: Path) -> None:
    """It would keep a core busy for as long as a bundle lasts."""
    built_prism()
    with running(
        "stream", "--runner", "PrismRunner", *sets(tmp_path, source__messages=None, source__rate=200)
    ) as process:
        wait_for_rows(tmp_path, 10, process)
        started = descendants(process.pid)
        before = cpu_seconds(started)
        # They come at their rate, whatever Prism does, so this takes five seconds or more.
        wait_for_rows(tmp_path, 10 + 5 * 200, process)
        used = cpu_seconds(started) - before
    assert used < 0.25 * 5


def test_sigterm_gives_back_what_was_not_taken(engine: list[str], emulator: Emulator, tmp_path: Path) -> None:
    emulator.publish(births(20_000, seed=SEED))
    arguments = [*engine, *PUBSUB, *sets(tmp_path, batching__max_rows=5), "--json"]
    with running("stream", *arguments, PUBSUB_EMULATOR_HOST=emulator.host) as process:
        wait_for_rows(tmp_path, 300, process)
        process.send_signal(signal.SIGTERM)
        summary = summary_of(process)
    rows = Counter(row["source_id"] for row in written(tmp_path))
    assert set(rows.values()) == {1}
    assert rows.total() == summary["rows_written"] == emulator.acknowledged() < 20_000
    assert hidden(tmp_path) == []


def test_a_second_signal_ends_it_at_once(engine: list[str], tmp_path: Path) -> None:
    """While the end in order waits for a slow server's answer."""
    with serving(PACKAGED, "--latency-ms", "8000") as server, httpx.Client(base_url=server.rest) as client:
        url = f"{server.rest}/v1/models/default:predict"
        model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": url, "signature_from": str(PACKAGED)}
        with running("stream", *engine, *sets(tmp_path, source__messages=None, model=model)) as process:
            is_asked = lambda: "in_flight 1.0" in client.get("/metrics").text  # noqa: E731
            wait_until(lambda: process.poll() is not None or is_asked(), "the server is asked")
            assert process.poll() is None, process.communicate()[1]
            started = descendants(process.pid)
            # A signal that comes before the one before it was taken is merged with it: so there are more than two.
            for _ in range(1_000):
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.02)
                    break
            assert process.returncode == 128 + signal.SIGINT
        wait_until_gone(started)


@pytest.mark.parametrize("module", ["stream", "batch"])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--runner", "FlinkRunner", "--job_endpoint", "localhost:1"], "--job_endpoint localhost:1: nobody answers"),
        (["--runner", "PortableRunner", "--job_endpoint=127.0.0.1"], "--job_endpoint 127.0.0.1: not host:port"),
        (["--runner", "PrismRunner", "--prism_location", "/no/prism"], "--prism_location /no/prism: there is no such"),
    ],
)
def test_what_is_wrong_with_an_engine_is_one_line(tmp_path: Path, module: str, flags: list[str], words: str) -> None:
    paths = ["--set", f"output.path={tmp_path}/p", "--set", f"dead_letters.path={tmp_path}/d"]
    with running(module, *flags, *paths) as process:
        err = process.communicate(timeout=120)[1]
    assert process.returncode == 2, err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert words in lines[0]
    assert "Traceback" not in err


def test_a_program_that_is_not_prism_is_named(tmp_path: Path) -> None:
    with running("stream", "--runner", "PrismRunner", "--prism_location", "/bin/false", *sets(tmp_path)) as process:
        err = process.communicate(timeout=120)[1]
    assert process.returncode == 2, err
    assert "--prism_location /bin/false: did not start as Prism" in err
