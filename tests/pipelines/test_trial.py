"""`check --model`: the first rows are predicted as in a run, and what the model refuses shows before one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.servers.stand_in import Answer, Seen, sevens, stand_in
from tests.support.commands import Command
from tests.support.ledger import KEY, MODEL, Row, births, books_of, write_config, write_rows

ROWS = 40


def refuses_twins(seen: Seen) -> Answer:
    """400 for requests with a plurality of 2 in them."""
    if 2 in json.loads(seen.body)["inputs"]["plurality"]:
        return 400, b'{"error": "two at once"}'
    return sevens(seen)


def refuses_all(seen: Seen) -> Answer:
    return 400, b'{"error": "nothing suits"}'


def knows_none(seen: Seen) -> Answer:
    return 404, b'{"error": "no such model"}'


def asking(folder: Path, file: Path, url: str, max_fraction: float) -> str:
    """A config of a run that asks a server."""
    path = Path(write_config(folder, "csv", str(file), dead_letters={"max_fraction": max_fraction}))
    model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": url, "signature_from": MODEL}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": model}))
    return str(path)


def some(count: int) -> list[Row]:
    return [{**row, "plurality": 1.0 + (number % 20 == 7)} for number, row in enumerate(births(count, 3))]


def test_the_outputs_are_those_of_a_run(command: Command, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", [{**some(1)[0], "plurality": None}, *some(ROWS)])
    config = write_config(tmp_path, "csv", str(file), output={"columns": [KEY, "mother_age", "predictions"]})
    found = command("check", "--config", config, "--model", "--rows", "4", "--json").summary["trial"]
    assert (found["runtime"], found["rows"], found["failed"]) == ("native", ROWS, [])
    assert not (tmp_path / "out").exists()
    shown = command("check", "--config", config, "--model")
    assert f"the model predicts all {ROWS} rows that it was tried with\n" in shown.out
    assert command("batch", "--config", config).code == 0
    written = [{k: str(v) for k, v in row.items()} for row in books_of(tmp_path).output[:4]]
    assert [{k: str(v) for k, v in row.items()} for row in found["outputs"]] == written


@pytest.mark.parametrize("max_fraction", [0.2, 1])
def test_rows_that_a_server_refuses_are_named(command: Command, tmp_path: Path, max_fraction: float) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", some(ROWS))
    with stand_in(refuses_twins) as server:
        config = asking(tmp_path, file, server.url, max_fraction)
        result = command("check", "--config", config, "--model", "--json")
        shown = command("check", "--config", config, "--model")
        ran = command("batch", "--config", config)
    assert (result.code, shown.code, ran.code) == (0, 0, 0), result
    found = result.summary["trial"]
    dead_letters = books_of(tmp_path).dead_letters
    assert len(dead_letters) == 2
    assert found["failed"] == [
        {"row": dead_letter["source"], "reason": dead_letter["message"]} for dead_letter in dead_letters
    ]
    assert all("two at once" in each["reason"] for each in found["failed"])
    assert [row["predictions"] for row in found["outputs"]] == [7.5] * 3
    assert f"of the {ROWS} rows that the model was tried with, 2 would become dead letters:\n" in shown.out
    assert "  {row}: {reason}\n".format(**found["failed"][0]) in shown.out


@pytest.mark.parametrize(
    ("answer", "max_fraction", "code", "said"),
    [
        (refuses_all, 0.5, 2, "error: model: it fails on each of the 40 rows that it was tried with; "),
        (refuses_all, 1, 0, ""),
        (knows_none, 1, 2, "no such model; check the address"),
    ],
)
def test_a_model_that_predicts_nothing(
    command: Command, tmp_path: Path, answer: Any, max_fraction: float, code: int, said: str
) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", some(ROWS))
    with stand_in(answer) as server:
        config = asking(tmp_path, file, server.url, max_fraction)
        result = command("check", "--config", config, "--model", "--json")
        server.seen.clear()
        assert command("check", "--config", config).code == 0
        assert server.seen == []
    assert result.code == code, result
    if code:
        [error] = result.errors
        assert said in error
        assert result.out == ""
    else:
        assert len(result.summary["trial"]["failed"]) == ROWS
        assert result.summary["trial"]["outputs"] == []


def test_a_model_that_does_not_load_is_one_line(command: Command, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(MODEL, broken)
    graph = (broken / "saved_model.pb").read_bytes()
    (broken / "saved_model.pb").write_bytes(graph.replace(b"SelectV2", b"SelectV9"))
    file = write_rows(tmp_path / "in.csv", "csv", some(3))
    config = write_config(tmp_path, "csv", str(file), model={"path": str(broken), "runtime": "native"})
    assert command("check", "--config", config).code == 0
    result = command("check", "--config", config, "--model")
    assert result.code == 2, result
    [error] = result.errors
    assert error.startswith("error: model: ")
    assert str(broken) in error
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("rows", "said"),
    [([], "the source has none"), ([{**some(1)[0], "plurality": None}], "each of the first rows would become")],
)
def test_without_rows_the_model_is_loaded_and_no_more(
    command: Command, tmp_path: Path, rows: list[Row], said: str
) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    config = write_config(tmp_path, "csv", str(file))
    result = command("check", "--config", config, "--model")
    assert result.code == 0, result
    assert "the model loads (native runtime); there are no rows to predict: " in result.out
    assert said in result.out


def test_a_stream_has_no_rows_yet(command: Command, tmp_path: Path) -> None:
    source = {"type": "simulated", "rate": 10, "messages": 5}
    config = json.loads(Path(write_config(tmp_path, "csv", "in.csv")).read_text()) | {"source": source}
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = command("check", "--config", str(tmp_path / "config.json"), "--model", "--json")
    assert result.code == 0, result
    found = result.summary["trial"]
    assert (found["rows"], found["outputs"], found["failed"]) == (0, [], [])
    assert "when they come" in found["untried"]
