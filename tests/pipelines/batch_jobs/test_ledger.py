"""Jobs that go wrong in every way that a service can: what goes in comes out, or is a dead letter, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import ledger
from tests.support.commands import Command
from tests.support.job_server import config_of, job_server
from tests.support.ledger import KEY, MODEL, births, books_of, shards, write_rows

ROWS = 20_000
NAMED_INLINE = ("rows refused, named inline", "rows refused, named in both")
"""Faults that only Vertex AI has: results of AI Platform name no refused rows."""
FAULTS: dict[str, dict[str, Any]] = {
    "rows refused, named beside": {"row_error_rate": 0.03, "errors": "beside"},
    "rows refused, named inline": {"row_error_rate": 0.03, "errors": "inline"},
    "rows refused, named in both": {"row_error_rate": 0.03, "errors": "both", "file_names": "predictions"},
    "input files lost": {"shard_error_rate": 0.5},
    "partial success": {"outcome": "partial", "row_error_rate": 0.01},
    "reversed, 200 files": {"order": "reversed", "shards": 200, "workers": 3},
    "answers lost": {"reset_rate": 0.4, "row_error_rate": 0.01},
}


@pytest.mark.parametrize(
    ("service", "fault"),
    [("vertex", fault) for fault in FAULTS] + [("ai_platform", fault) for fault in FAULTS if fault not in NAMED_INLINE],
)
def test_every_row_is_accounted_for(
    command: Command, tmp_path: Path, keyed_model: str, fault: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.cloud.rest._MAX_PAUSE", 0.05)
    rows = births(ROWS, 21)
    parts = [write_rows(tmp_path / f"in-{part}.csv", "csv", rows[part::4]) for part in range(4)]
    served = keyed_model if service == "ai_platform" else MODEL
    with job_server(tmp_path, served, seed=5, **FAULTS[fault]) as server:
        model = server.model(tmp_path, service, signature_from=served)
        config = config_of(tmp_path, tmp_path / "in-*.csv", model)
        result = command("batch", "--config", config, "--json")
        jobs = server.jobs(service) if fault != "answers lost" else []
    assert result.code == 0, result
    assert len(parts) == 4
    assert len(jobs) <= 1
    summary, books = result.summary, books_of(tmp_path)
    assert summary["rows_read"] == ROWS
    assert summary["rows_written"] + summary["rows_dead_lettered"] == ROWS
    written = books.keys
    assert written + books.letter_keys == {row[KEY]: 1 for row in rows}
    ledger.assert_predictions(books, [row for row in rows if row[KEY] in written])
    payloads = {row[KEY]: ledger.csv_row(row) for row in rows}
    for dead_letter in books.dead_letters:
        assert dead_letter["payload"] == payloads[dead_letter["key"]]
        assert (dead_letter["stage"], dead_letter["attempts"]) == ("predict", 1)
    errors = {(dead_letter["error"], dead_letter["message"]) for dead_letter in books.dead_letters}
    if fault in NAMED_INLINE:
        assert errors == {("INVALID_ARGUMENT", "refused on purpose")}
    elif fault.startswith("rows refused"):
        [(error, message)] = errors
        assert error == "NoResultError"
        assert f"refused on purpose ({summary['rows_dead_lettered']:,})" in message
    else:
        assert {error for error, _ in errors} <= {"NoResultError"}
    assert bool(errors) is (fault != "reversed, 200 files")
    told = "PARTIALLY_SUCCEEDED" in summary["batch_job"]["state"]
    assert told is (fault == "partial success" and service == "vertex")
    assert any("did not try all rows" in note for note in summary["notes"]) is told


@pytest.mark.parametrize("fault", ["duplicate_rate", "foreign_rate"])
def test_results_that_no_row_can_have_end_the_run(command: Command, tmp_path: Path, fault: str) -> None:
    rows = births(3_000, 22)
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    with job_server(tmp_path, **{fault: 0.01}) as server:
        config = config_of(tmp_path, file, server.model(tmp_path))
        result = command("batch", "--config", config)
    assert result.code == 3, result
    said = "a repeated key" if fault == "duplicate_rate" else "an unknown key"
    [line] = result.errors
    assert "the job's results do not fit the rows, so nothing was published" in line
    assert f"results with {said}, such as " in line
    assert "--resubmit submits a new job" in line
    assert "Traceback" not in result.err
    assert shards(tmp_path / "out" / "p") == []


def test_too_many_rows_refused_cost_nothing(command: Command, tmp_path: Path) -> None:
    """The job is not submitted if it is certain that the run cannot end well."""
    rows = births(100, 23)
    for row in rows[:5]:
        row["is_male"] = None
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    with job_server(tmp_path) as server:
        config = config_of(tmp_path, file, server.model(tmp_path), dead_letters={"max_fraction": 0.04})
        result = command("batch", "--config", config)
        assert result.code == 3, result
        assert "5.00% of the rows were dead-lettered while they were prepared" in result.errors[0]
        assert server.jobs() == []
        again = command("batch", "--config", config, "--set=dead_letters.max_fraction=0.05", "--json")
    assert again.code == 0, again
    assert (again.summary["rows_written"], again.summary["rows_dead_lettered"]) == (95, 5)
    assert "prepare" not in again.summary["batch_job"]["steps_s"]


def test_a_row_that_is_too_large(command: Command, tmp_path: Path) -> None:
    rows = births(50, 24)
    rows[7]["mother_race"] = "x" * 2_000
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    with job_server(tmp_path) as server:
        model = server.model(tmp_path, max_instance_bytes=1_500)
        result = command("batch", "--config", config_of(tmp_path, file, model), "--json")
    assert result.code == 0, result
    [dead_letter] = books_of(tmp_path).dead_letters
    assert (dead_letter["key"], dead_letter["stage"]) == (rows[7][KEY], "predict")
    assert dead_letter["error"] == "RequestTooLargeError"


def test_integers_that_the_service_would_round(command: Command, tmp_path: Path) -> None:
    lines = [json.dumps({"n": number}) for number in (1, 2**53, 2**53 + 1, -(2**53) - 1)]
    (tmp_path / "in.json").write_text("\n".join(lines) + "\n")
    with job_server(tmp_path) as server:
        model = server.model(tmp_path, inputs={"n": "int64"})
        del model["signature_from"]
        config = config_of(tmp_path, tmp_path / "in.json", model, "json", source={"key": "n", "defaults": {}})
        result = command("batch", "--config", config, "--step", "prepare", "--json")
    assert result.code == 0, result
    assert (result.summary["instances"], result.summary["rows_dead_lettered"]) == (2, 2)
