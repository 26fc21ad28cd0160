"""Whole streams: every message once in the output or in the dead letters, in time, and an end in order."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from inference import SavedModelHandler
from tests.support.commands import Command
from tests.support.ledger import DEFAULTS, MODEL
from tests.support.serving_process import serving
from tests.support.streams import dead_letters, hidden, sets, start, wait_for_rows, written


def test_every_message_once_with_the_prediction_of_a_direct_call(command: Command, tmp_path: Path) -> None:
    result = command("stream", "--max-messages", "700", *sets(tmp_path, source__rate=1000), "--json")
    assert result.code == 0, result
    rows = written(tmp_path)
    assert Counter(row["source_id"] for row in rows) == Counter(f"b{n:09d}" for n in range(700))
    assert {row["model_version"] for row in rows} == {"v1"}
    assert hidden(tmp_path) == []
    summary = result.summary
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (700, 700, 0)
    assert summary["seconds"] > 0.5
    assert set(summary["latency_ms"]) == {"p50", "p95", "p99", "max"}
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert set(summary["stage_latency_ms"]) == {"lag", "wait", "model", "total"}
    assert len(result.out.splitlines()) == 1

    import numpy as np

    from pipelines.connectors.simulated.natality import births_at

    messages = [json.loads(m.as_py()) for m in births_at(np.arange(700), 2001, np.zeros(700, np.int64))]
    handler = SavedModelHandler(MODEL, defaults=DEFAULTS)
    [predicted] = handler.run_inference([pa.RecordBatch.from_pylist(messages)], handler.load_model())
    wanted = dict(zip(predicted["source_id"].to_pylist(), predicted["predictions"].to_pylist(), strict=True))
    assert {row["source_id"]: np.float32(row["predictions"]) for row in rows} == pytest.approx(wanted, rel=2e-7)


def test_bad_messages_become_dead_letters_and_no_neighbour_changes(command: Command, tmp_path: Path) -> None:
    births = [
        {"source_id": f"m{n}", "mother_age": 20 + n % 20, "plurality": 1, "gestation_weeks": 39.5, "is_male": "True",
         "mother_race": "White", "mother_married": "True", "cigarette_use": "False", "alcohol_use": "False"}
        for n in range(100)
    ]  # fmt: skip
    lines = [json.dumps(birth).encode() for birth in births]
    lines[7] = lines[7][:-20]
    lines[30] = b"[1, 2]"
    lines[55] = json.dumps({**births[55], "mother_age": None}).encode()
    lines[56] = json.dumps({**births[56], "plurality": "many"}).encode()
    file = tmp_path / "messages.jsonl"
    file.write_bytes(b"\n".join(lines))
    changes = {"source__path": str(file), "source__rate": 2000, "dead_letters__max_fraction": 0.1}
    result = command("stream", "--max-messages", "100", *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    bad = {7, 30, 55, 56}
    assert Counter(row["source_id"] for row in written(tmp_path)) == Counter(
        f"m{n}" for n in range(100) if n not in bad
    )
    found = dead_letters(tmp_path)
    import base64

    assert Counter(base64.b64decode(dead_letter["payload"]) for dead_letter in found) == Counter(lines[n] for n in bad)
    assert Counter(dead_letter["stage"] in ("decode", "coerce") for dead_letter in found) == {True: 4}
    assert result.summary["rows_dead_lettered"] == 4
    assert hidden(tmp_path) == []
    changes["dead_letters__max_fraction"] = 0.03
    result = command("stream", "--max-messages", "100", *sets(tmp_path / "2", **changes), "--json")
    assert result.code == 3
    assert "max_fraction" in result.errors[0]


def test_rows_are_shown_on_the_console(command: Command, tmp_path: Path) -> None:
    result = command("stream", "--max-messages", "200", *sets(tmp_path, source__rate=1000, output__show=3))
    assert result.code == 0, result
    shown = [json.loads(line) for line in result.out.splitlines() if line.startswith("{")]
    assert 1 <= len(shown) <= 6
    assert shown[0]["source_id"] == "b000000000"
    assert "latency, total" in result.out
    output = '{"type": "console", "show": 2}'
    dead_letters = ["--set", f"dead_letters.path={tmp_path}/d"]
    result = command("stream", "--max-messages", "50", "--set", f"output={output}", *dead_letters, "--json")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["output"]) == (50, "the console")
    assert '"source_id"' in result.err


def test_one_message_at_a_time(command: Command, tmp_path: Path) -> None:
    changes = {"batching__max_rows": 1, "source__rate": 200}
    result = command("stream", "--max-messages", "60", *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    assert len(written(tmp_path)) == 60


def test_a_model_on_a_server(command: Command, tmp_path: Path) -> None:
    with serving(MODEL) as server:
        model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": server.rest}
        result = command("stream", "--max-messages", "300", *sets(tmp_path, model=model, source__rate=1000), "--json")
    assert result.code == 0, result
    rows = written(tmp_path)
    assert len({row["source_id"] for row in rows}) == len(rows) == 300
    assert {row["model_version"] for row in rows} == {"1"}


WRONG: dict[str, tuple[list[str], list[str]]] = {
    "a file": (["source={\"type\": \"file\", \"format\": \"csv\", \"path\": \"data\"}"], ["pipelines.batch"]),
    "a format of whole files": (["output.format=parquet"], ["output.format", "csv or json"]),
    "no rate": (["source.rate=-1"], ["source.rate"]),
    "no such key": (["source.rat=1"], ["source.rat", "did you mean 'rate'"]),
    "no such type": (["source.type=simulate"], ["source.type", "did you mean 'simulated'"]),
    "no such file": (["source.path=/no/such.jsonl"], ["source.path", "/no/such.jsonl"]),
}  # fmt: skip


@pytest.mark.parametrize("what", list(WRONG))
def test_mistakes_are_one_line_each(command: Command, tmp_path: Path, what: str) -> None:
    changes, words = WRONG[what]
    settings = [part for change in changes for part in ("--set", change)]
    result = command("stream", "--max-messages", "10", *sets(tmp_path), *settings)
    assert result.code == 2, result
    assert len(result.errors) == 1, result
    assert all(word in result.errors[0] for word in words), result.errors
    assert "Traceback" not in result.err


def test_batch_says_that_a_stream_is_one(command: Command) -> None:
    result = command("batch", "--config", "configs/natality-stream.json")
    assert result.code == 2
    assert "pipelines.stream" in result.errors[0]


# Ends --------------------------------------------------------------------------------------------------------------


def test_sigterm_ends_a_stream_in_order(tmp_path: Path) -> None:
    process = start(tmp_path, "--set", "source.rate=2000", "--json")
    wait_for_rows(tmp_path, 1_500, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    summary = json.loads(out)
    keys = Counter(row["source_id"] for row in written(tmp_path))
    assert keys == Counter(f"b{n:09d}" for n in range(summary["rows_read"]))
    assert summary["rows_written"] == summary["rows_read"] >= 1_500
    assert hidden(tmp_path) == []


def test_what_a_killed_stream_had_written_is_published_by_the_next(command: Command, tmp_path: Path) -> None:
    process = start(tmp_path, "--set", "source.rate=2000", "--set", "output.window_s=86400")
    wait_for_rows(tmp_path, 1_500, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert written(tmp_path) == []
    assert len(hidden(tmp_path)) == 1
    result = command("stream", "--max-messages", "10", *sets(tmp_path), "--json")
    assert result.code == 0, result
    assert "published 1 file that a stopped run left" in result.err
    keys = Counter(row["source_id"] for row in written(tmp_path))
    first = keys.total() - 10
    assert first >= 1_500
    assert keys == Counter(f"b{n:09d}" for n in range(first)) + Counter(f"b{n:09d}" for n in range(10))
    assert hidden(tmp_path) == []
