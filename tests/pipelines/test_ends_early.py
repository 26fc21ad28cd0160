"""Runs that cannot end well: they end after a stated number of calls, with one message; all others go to their end."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference.calls import PROBES
from inference.endpoint.track_record import FEW_TRIES, GIVEN_UP
from model.savedmodel import SavedModel
from pipelines.dead_letters import limit
from pipelines.telemetry.tally import TALLY, LiveProgress
from tests.servers.stand_in import Answer, Seen, stand_in
from tests.support import ledger
from tests.support.commands import Command, Result

PAGE = b"<!DOCTYPE html><html><head><title>Sign in to Example</title></head><body><form>...</form></body></html>"
IN_FLIGHT = 8


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each call of a model in the worker."""
    made: list[int] = []
    call = SavedModel.__call__

    def counted(self: SavedModel, *args: Any, **kwargs: Any) -> Any:
        made.append(1)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(SavedModel, "__call__", counted)
    return made


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a tenth of the size may end early, so that tests are short."""
    monkeypatch.setattr(limit, "ENOUGH_ROWS", 1_000)


def ages(rows: int, is_bad: Callable[[int], bool]) -> pa.Table:
    """Rows that the strict model fails on where the age is negative."""
    return pa.table(
        {
            "source_id": [f"k{row}" for row in range(rows)],
            "mother_age": pa.array([-1.0 if is_bad(row) else 30.0 for row in range(rows)], pa.float32()),
            "plurality": pa.array([1.0] * rows, pa.float32()),
        }
    )


def write(path: Path, table: pa.Table) -> str:
    """Writes rows in the format that the name says."""
    names, rows = table.column_names, table.to_pylist()
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        open_file = gzip.open if path.suffix == ".gz" else open
        with open_file(path, "wt", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def config(folder: Path, model: Any, source: str, max_fraction: float = 0.01, max_rows: int = 4_096) -> str:
    format = {".parquet": "parquet", ".jsonl": "json"}.get(Path(source).suffix, "csv")
    made = {
        "name": "early",
        "source": {"type": "file", "format": format, "path": source, "key": "source_id"},
        "model": {"type": "saved_model", "path": model} if isinstance(model, str) else model,
        "batching": {"max_rows": max_rows},
        "output": {"type": "file", "format": "csv", "path": str(folder / "out" / "p")},
        "dead_letters": {"path": str(folder / "out" / "dead"), "max_fraction": max_fraction},
    }
    file = folder / "config.json"
    file.write_text(json.dumps(made))
    return str(file)


def assert_ended(result: Result, folder: Path, code: int) -> str:
    """The run has ended early, with one line, and has left nothing; gives the line."""
    assert result.code == code, result
    assert result.out == ""
    assert len(result.errors) == 1, result
    assert "nothing was published" in result.errors[0]
    assert "Traceback" not in result.err
    assert [path for path in (folder / "out").rglob("*") if path.is_file() and "lock" not in path.name] == []
    return result.errors[0]


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.jsonl", "in.parquet"])
def test_a_model_that_fails_on_every_row_is_called_a_few_times(
    command: Command, tmp_path: Path, calls: list[int], strict_model: str, name: str
) -> None:
    source = write(tmp_path / name, ages(20_000, lambda row: True))
    result = command("batch", "--config", config(tmp_path, strict_model, source))
    said = assert_ended(result, tmp_path, 3)
    assert "the model fails on every row: 32 of 20,000 rows" in said
    assert "a negative age" in said
    assert "dead_letters.max_fraction" in said
    # Warming up, one slice, in which it shows, and the probes.
    assert len(calls) <= PROBES + 5


def test_many_bad_rows_end_the_run_once_that_is_certain(
    command: Command, tmp_path: Path, calls: list[int], strict_model: str
) -> None:
    source = write(tmp_path / "in.csv", ages(20_000, lambda row: row % 2 == 0))
    said = assert_ended(command("batch", "--config", config(tmp_path, strict_model, source)), tmp_path, 3)
    assert "2,001 of the 20,000 rows read so far have failed, and dead_letters.max_fraction allows 1.00%" in said
    assert "2,001 rows with InvalidArgumentError (predict), for example" in said
    # Where every other row is bad, two rows cost four calls.
    assert len(calls) <= 4 * 2_001 + 20


def test_rows_that_cannot_be_decoded_or_coerced_end_it_too(command: Command, tmp_path: Path, soon: None) -> None:
    rows = ledger.births(4_000, 5)
    bad = [{**row, "mother_age": "many"} if index % 3 else row for index, row in enumerate(rows)]
    source = ledger.write_rows(tmp_path / "in.jsonl", "json", bad)
    made = ledger.write_config(tmp_path, "json", str(source), dead_letters={"max_fraction": 0.01})
    said = assert_ended(command("batch", "--config", made), tmp_path, 3)
    assert "rows with CoercionError (coerce), for example " in said
    assert "'many'" in said


@pytest.mark.parametrize(("bad", "code"), [(30, 0), (300, 3)])
def test_a_run_that_is_not_far_above_goes_to_its_end(
    command: Command, tmp_path: Path, strict_model: str, soon: None, bad: int, code: int
) -> None:
    """One per cent is allowed; a tenth is far above it."""
    source = write(tmp_path / "in.csv", ages(4_000, lambda row: row < bad))
    result = command("batch", "--config", config(tmp_path, strict_model, source), "--json")
    assert result.code == code, result
    assert (result.summary["rows_written"], result.summary["rows_dead_lettered"]) == (4_000 - bad, bad)
    assert ledger.recounted(tmp_path / "out" / "p") == 4_000 - bad
    assert [line for line in result.errors if "max_fraction" in line] == result.errors
    assert len(result.errors) == (code == 3)


def test_bad_rows_at_the_beginning_do_not_end_a_run_that_would_end_well(
    command: Command, tmp_path: Path, strict_model: str, soon: None, small_pieces: Callable[[int, int], None]
) -> None:
    """Nothing has succeeded, all that was read has failed: 1,200 rows. But there are many more."""
    small_pieces(8_000, 8_000)
    source = write(tmp_path / "in.csv", ages(30_000, lambda row: row < 1_200))
    made = config(tmp_path, strict_model, source, max_fraction=0.05)
    result = command("batch", "--config", made, "--json", "--direct_num_workers=1")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["rows_dead_lettered"]) == (28_800, 1_200)


def test_all_rows_are_tried_where_all_may_fail(
    command: Command, tmp_path: Path, calls: list[int], strict_model: str, soon: None
) -> None:
    source = write(tmp_path / "in.csv", ages(3_000, lambda row: True))
    made = config(tmp_path, strict_model, source, max_fraction=1)
    result = command("batch", "--config", made, "--json")
    assert result.code == 0, result
    assert result.summary["rows_dead_lettered"] == 3_000
    assert len(calls) <= 1.25 * 3_000 + 1
    calls.clear()
    replayed = command("replay", "--config", config(tmp_path, strict_model, source), "--json")
    assert replayed.code == 0, replayed
    assert replayed.summary["rows_dead_lettered"] == 3_000
    assert len(calls) <= 1.25 * 3_000 + 1


def test_a_small_run_has_its_dead_letters_to_look_at(command: Command, tmp_path: Path, strict_model: str) -> None:
    source = write(tmp_path / "in.csv", ages(200, lambda row: True))
    result = command("batch", "--config", config(tmp_path, strict_model, source), "--json")
    assert result.code == 3, result
    assert result.summary["rows_dead_lettered"] == 200
    assert len(ledger.dead_letters(tmp_path / "out" / "dead")) == 200


# At an endpoint -----------------------------------------------------------------------------------------------------


def predictions(name: str) -> Callable[[Seen], Answer]:
    def answer(seen: Seen) -> Answer:
        given = json.loads(seen.body)["inputs"]
        rows = len(next(iter(given.values())))
        return 200, json.dumps({"outputs": {name: [1.0] * rows, "other": [1.0] * rows}}).encode()

    return answer


ALWAYS: dict[str, tuple[Callable[[Seen], Answer], str, int]] = {
    "a page": (lambda seen: (200, PAGE), "an HTML page, perhaps a sign-in page: 'Sign in to Example'", 1),
    "another output": (predictions("prediction"), "lacks output 'predictions'; it has 'prediction', 'other'", 1),
    "a list": (lambda seen: (200, b"[]"), "the answer is a list, not an object", 1),
    "no predictions": (lambda seen: (200, b'{"ok": true}'), "the answer has no predictions; it has 'ok'", 1),
    "an empty body": (lambda seen: (200, b""), "the answer is not JSON", 100),
    "an error of the server": (lambda seen: (500, b'{"error": "out of order"}'), "500: out of order", 100),
}


@pytest.mark.parametrize("case", ALWAYS)
def test_a_server_that_never_predicts(
    command: Command, tmp_path: Path, strict_model: str, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr("inference.endpoint.retries.FIRST_PAUSE_S", 0.01)
    answer, said, most = ALWAYS[case]
    source = write(tmp_path / "in.csv", ages(1_450, lambda row: False))
    with stand_in(answer) as server:
        model = {
            "type": "endpoint", "protocol": "tf_serving_rest", "url": server.url, "signature_from": strict_model,
            "max_attempts": 3,
        }  # fmt: skip
        result = command("batch", "--config", config(tmp_path, model, source, max_rows=100))
        line = assert_ended(result, tmp_path, 2)
    assert said in line
    assert f"tf_serving_rest:{server.url}/default" in line
    assert "no request has succeeded" in line
    # Of a page each request under way is repeated a few times. Else the 15 requests are told apart down to single rows.
    assert len(server.seen) <= FEW_TRIES * (IN_FLIGHT if most == 1 else 15 * 4 * IN_FLIGHT + 2 * GIVEN_UP)


def test_a_server_that_refuses_every_row(command: Command, tmp_path: Path, strict_model: str) -> None:
    source = write(tmp_path / "in.csv", ages(20_000, lambda row: False))
    with stand_in(lambda seen: (400, b'{"error": "no input named mother_age"}')) as server:
        model = {
            "type": "endpoint", "protocol": "tf_serving_rest", "url": server.url, "signature_from": strict_model,
        }  # fmt: skip
        result = command("batch", "--config", config(tmp_path, model, source))
        line = assert_ended(result, tmp_path, 2)
    assert "the model fails on every row" in line
    assert "no input named mother_age" in line
    assert len(server.seen) <= 5 + PROBES + 2 * IN_FLIGHT


def test_a_server_that_turns_into_a_page_half_way(command: Command, tmp_path: Path, strict_model: str) -> None:
    served = iter(range(4))
    good = predictions("predictions")
    source = write(tmp_path / "in.csv", ages(5_000, lambda row: False))
    with stand_in(lambda seen: good(seen) if next(served, None) is not None else (200, PAGE)) as server:
        model = {
            "type": "endpoint", "protocol": "tf_serving_rest", "url": server.url, "signature_from": strict_model,
        }  # fmt: skip
        result = command("batch", "--config", config(tmp_path, model, source, max_rows=100))
        line = assert_ended(result, tmp_path, 2)
    assert "has stopped predicting: its last 64 answers were none of a model" in line
    assert "Sign in to Example" in line
    assert len(server.seen) <= 4 + 64 + 2 * IN_FLIGHT


# A stream -----------------------------------------------------------------------------------------------------------


def stream(command: Command, folder: Path, model: str, table: pa.Table, **changes: Any) -> Result:
    """Runs a stream of rows."""
    file = write(folder / "messages.jsonl", table)
    made = {
        "name": "early",
        "source": {
            "type": "simulated", "format": "json", "path": file, "rate": 20_000, "messages": table.num_rows,
            "key": "source_id",
        },
        "model": {"type": "saved_model", "path": model},
        "batching": {"max_rows": 200, "max_wait_ms": 10},
        "output": {"type": "file", "format": "csv", "path": str(folder / "out" / "p")},
        "dead_letters": {"path": str(folder / "out" / "dead"), "max_fraction": 0.01, **changes},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(made))
    return command("stream", "--config", str(folder / "config.json"), "--json")


def test_a_stream_whose_every_row_fails_ends_in_order(
    command: Command, tmp_path: Path, strict_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit, "STREAM_IN_A_ROW", 600)
    result = stream(command, tmp_path, strict_model, ages(20_000, lambda row: row >= 1_000))
    assert result.code == 3, result
    summary = result.summary
    assert summary["rows_written"] == 1_000
    assert 600 <= summary["rows_dead_lettered"] < 15_000
    assert summary["rows_read"] == summary["rows_written"] + summary["rows_dead_lettered"]
    assert "the stream was ended, because all of its last" in result.errors[0]
    assert "InvalidArgumentError (predict), for example k1000: " in result.errors[0]
    # Nothing is acknowledged that is not durable.
    found = [json.loads(line)["key"] for path in (tmp_path / "out").glob("dead-*") for line in path.open()]
    assert len(set(found)) == len(found) == summary["rows_dead_lettered"]


@pytest.mark.parametrize(("is_bad", "changes"), [("half", {}), ("all", {"max_fraction": 1})])
def test_a_stream_goes_on_while_rows_are_written_or_all_may_fail(
    command: Command,
    tmp_path: Path,
    strict_model: str,
    monkeypatch: pytest.MonkeyPatch,
    is_bad: str,
    changes: dict[str, Any],
) -> None:
    monkeypatch.setattr(limit, "STREAM_IN_A_ROW", 100)
    table = ages(1_200, lambda row: is_bad == "all" or row % 200 < 150)
    result = stream(command, tmp_path, strict_model, table, **changes)
    assert result.summary["rows_read"] == 1_200
    assert result.code == (3 if is_bad == "half" else 0), result
    assert all("was ended" not in line for line in result.errors)


# What is seen of it -------------------------------------------------------------------------------------------------


def test_the_progress_line_knows_that_work_is_left() -> None:
    class Console:
        is_terminal = False

    live = LiveProgress(Console(), 1_000, every_s=1_000)
    live.begin()
    TALLY.clear()
    try:
        assert "  0%" in live.line()
        TALLY.add(read=1_450, nbytes=1_000)
        # All is read, nothing is done.
        assert live.line().startswith("  0%  1,450 rows read, 1,450 under way, 0 rows/s, ...")
        TALLY.add(written=1_000, dead_lettered=449)
        assert live.line().startswith(" 99%  1,450 rows read, 1 under way, 449 dead-lettered")
        assert " 0 s left" not in live.line()
        TALLY.add(written=1)
        assert live.line().startswith("100%  1,450 rows read, 449 dead-lettered")
        assert live.line().endswith(" 0 s left")
    finally:
        TALLY.clear()
