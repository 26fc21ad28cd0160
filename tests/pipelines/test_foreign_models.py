"""Models that nobody here exported, in batch, stream and serve: they run, or one line says why not."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from model import serve
from tests.support.commands import Command, save


def read_rows(folder: Path, name: str = "p") -> list[dict[str, str]]:
    """Reads the rows of a run's CSV files."""
    found: list[dict[str, str]] = []
    for file in sorted(folder.glob(f"{name}-0*.csv")):
        with file.open(newline="") as stream:
            found += csv.DictReader(stream)
    return found


def write_config(folder: Path, model: dict[str, Any], source: str, **parts: Any) -> str:
    """Writes a config of a batch run from a CSV file to CSV files."""
    config = {
        "source": {"type": "file", "format": "csv", "path": source, **parts.pop("source", {})},
        "model": {"type": "saved_model", **model},
        "output": {"type": "file", "format": "csv", "path": str(folder / "p"), **parts.pop("output", {})},
        "dead_letters": {"path": str(folder / "d")},
        **parts,
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


def write_csv(path: Path, rows: dict[str, list[Any]]) -> str:
    """Writes columns as a CSV file."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values(), strict=True))
    return str(path)


@pytest.mark.parametrize("name", ["keras2", "reference"])
def test_an_old_model_predicts_files(
    name: str, old_models: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    written = json.loads((old_models / f"{name}.json").read_text())
    source = write_csv(tmp_path / "rows.csv", written["rows"])
    config = write_config(tmp_path, {"path": str(old_models / name)}, source)
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    scores = [float(row["score"]) for row in read_rows(tmp_path)]
    assert scores == pytest.approx(written["outputs"]["score"])


@pytest.fixture
def truncated(tmp_path: Path) -> str:
    """A model with the first bytes of its variables only."""
    import tensorflow as tf

    class Weighted(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable([1.0] * 1000)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "mother_age")])
        def __call__(self, mother_age: Any) -> dict[str, Any]:
            return {"predictions": mother_age * tf.reduce_sum(self.weights)}

    model = save(Weighted(), tmp_path / "truncated")
    [data] = Path(model, "variables").glob("variables.data*")
    data.write_bytes(data.read_bytes()[:100])
    return model


def test_a_model_that_cannot_be_loaded_ends_a_run_with_one_line(
    truncated: str, tmp_path: Path, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    places = [f"output.path={tmp_path}/p", f"dead_letters.path={tmp_path}/d", f"model.path={truncated}"]
    places += ["source.defaults={}", "output.columns=null"]
    arguments = [word for place in places for word in ("--set", place)]
    runs = [command("batch", *arguments), command("stream", *arguments, "--set", "source.messages=20")]
    for result in runs:
        assert result.code == 2, result
        assert len(result.errors) == 1
        assert f"TensorFlow cannot load the model at {truncated}: " in result.errors[0]
        assert "cut off or damaged" in result.errors[0]
        assert "Traceback" not in result.err
        assert len(result.err.splitlines()) < 10, result.err
    assert not list(tmp_path.glob("p-*"))
    capfd.readouterr()
    assert serve.main(["--model", truncated, "--port", "0"]) == 2
    err = capfd.readouterr().err
    assert "cut off or damaged" in err
    assert "Traceback" not in err
    assert err.count("error: ") == 1
