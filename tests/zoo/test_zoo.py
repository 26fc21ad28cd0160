"""Models and tables of every kind go through `init`, `check` and `batch`, and give what a direct call gives."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import processes
from tests.support.commands import ROOT, Command
from tests.zoo import data
from tests.zoo.models import FORMATS, MAKERS, Sample, lose_an_operation

CASES = [(name, format) for name in MAKERS for format in FORMATS[name]]

Made = Callable[[str], tuple[str, Sample]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Gives the folder and the sample of a model, made when it is first wanted."""
    known: dict[str, tuple[str, Sample]] = {}
    folder = tmp_path_factory.mktemp("zoo")

    def make_elsewhere() -> None:
        """Makes Keras 2's models in another process: where tf_keras is imported, its classes help to load them."""
        names = [name for name in MAKERS if name.startswith("keras2")]
        processes.run([sys.executable, "-m", "tests.zoo.models", str(folder), *names], cwd=ROOT, check=True)
        known.update({n: (str(folder / n), Sample(**json.loads((folder / f"{n}.json").read_text()))) for n in names})

    def make(name: str) -> tuple[str, Sample]:
        if name not in known:
            if name.startswith("keras2"):
                make_elsewhere()
            else:
                known[name] = str(folder / name), MAKERS[name](folder / name)
        return known[name]

    return make


@pytest.mark.parametrize(("name", "format"), CASES)
def test_a_model_and_a_table_at_the_first_try(
    made: Made, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, format: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model, sample = made(name)
    source = data.write(sample.table, format, tmp_path / "data")
    result = command("init", "--model", model, "--source", str(source), "--output", "c.json", *_init(sample, format))
    assert result.code == 0, result
    sets = [part for value in sample.sets for part in ("--set", value)]
    result = command("check", "--config", "c.json", *sets)
    assert result.code == 0, result
    result = command("batch", "--config", "c.json", "--json", *sets)
    assert result.code == 0, result
    rows = len(next(iter(sample.table.values())))
    assert result.summary["rows_written"] == rows
    output = json.loads(Path("c.json").read_text())["output"]
    _compare(sample, data.read(Path(output["path"]), output["format"]), output["format"])


def _init(sample: Sample, format: str) -> list[str]:
    return [*sample.arguments, *(["--format", "bytes"] if format == "bytes" else [])]


def _compare(sample: Sample, rows: list[dict[str, Any]], format: str) -> None:
    if "id" in sample.table:
        by_key = {row["id"]: row for row in rows}
        assert len(by_key) == len(rows)
        rows = [by_key[key] for key in sample.table["id"]]
    elif rows and "path" in rows[0]:
        rows = sorted(rows, key=lambda row: str(row["path"]))
    for output, expected in sample.outputs.items():
        found = [row[output] for row in rows]
        if isinstance(expected[0], str):
            assert found == list(expected)
            continue
        found = [_value(value) for value in found]
        if np.ndim(expected[0]) and len({len(value) for value in expected}) > 1:
            assert found == list(expected)
        else:
            np.testing.assert_allclose(np.array(found, float), np.array(expected, float), rtol=1e-5, atol=1e-5)


def _value(text: Any) -> Any:
    """A value of an output; texts of CSV as what they stand for."""
    if isinstance(text, str):
        try:
            return json.loads(text.lower() if text in ("True", "False") else text)
        except ValueError:
            return text
    return text


def test_a_model_with_an_operation_that_is_missing(
    made: Made, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    sample = MAKERS["module_of_one_row"](folder)
    name = lose_an_operation(folder)
    source = data.write(sample.table, "csv", tmp_path / "data")
    assert command("init", "--model", str(folder), "--source", str(source), "--output", "c.json").code == 0
    result = command("batch", "--config", "c.json")
    assert result.code == 2
    assert len(result.errors) == 1
    assert name in result.errors[0]
    assert "Traceback" not in result.err
