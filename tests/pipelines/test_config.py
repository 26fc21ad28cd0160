"""The committed schema and configs are those of the code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.config import __main__ as schema
from pipelines.config.errors import ConfigError
from pipelines.config.kafka import KafkaSecurity
from pipelines.config.load import load, load_part
from tests.support.commands import ROOT, Command
from tests.support.comparison_results import batch as sample_results

CONFIGS = sorted(path for path in (ROOT / "configs").glob("natality*.json"))


def test_the_schema_is_up_to_date() -> None:
    assert (ROOT / "configs" / "schema.json").read_text() == schema.json_schema(), "run `make schema`"
    assert schema.main(["--check"]) == 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configs_are_valid(path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert load(str(path)).name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configs_name_the_schema(path: object) -> None:
    assert json.loads(Path(str(path)).read_text())["$schema"] == "schema.json"


def test_the_packaged_config_fits_its_data_and_model(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert command("check").code == 0


def test_unknown_keys_hide_no_other_mistake(tmp_path: Path) -> None:
    """Not even one that shows only in what several keys say together."""
    path = tmp_path / "config.json"
    content = {
        "source": {"type": "file", "path": "a.parquet", "format": "parquet", "trim": True, "kee": "id"},
        "model": {"type": "endpoint", "protocol": "tf_serving_rest", "urll": "http://localhost:8501"},
        "output": {"type": "file", "format": "csvv", "path": "out/p"},
        "batchin": {},
    }
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as raised:
        load(str(path))
    told = {problem.removeprefix(f"{path}: ").partition(";")[0].partition(" (")[0] for problem in raised.value.problems}
    assert told >= {
        "source.kee: unknown key",
        "source: trim: parquet files have none, only csv",
        "model.urll: unknown key",
        "model: url is missing: where is the server?",
        "output.format: 'csvv' is not one of csv, json, parquet, avro, tfrecord",
        "batchin: unknown key",
    }


@pytest.mark.parametrize("module", ["batch", "stream", "check"])
def test_a_comparison_in_place_of_a_run_is_told_in_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.chdir(ROOT)
    result = command(module, "--config", "configs/compare-batch.json")
    assert result.code == 2
    assert result.errors == [
        "error: configs/compare-batch.json: a comparison's config, which python -m pipelines.compare takes; the run "
        "that it is based on is configs/natality.json"
    ]


@pytest.mark.parametrize("module", ["batch", "stream", "check", "compare"])
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("prices.json", "a file of prices: give it with --prices"),
        ("schema.json", "a schema, which editors read: give a config"),
        ("compare-schema.json", "a schema, which editors read: give a config"),
        ("results.json", "results of a comparison: give them to python -m pipelines.recommend --results"),
    ],
)
def test_a_file_of_another_kind_is_told_in_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, file: str, words: str
) -> None:
    path = f"configs/{file}"
    if file == "results.json":
        path = str(tmp_path / file)
        (tmp_path / file).write_text(sample_results().model_dump_json())
    monkeypatch.chdir(ROOT)
    result = command(module, "--config", path)
    assert result.code == 2
    assert result.errors == [f"error: {path}: {words}"]


def test_mistakes_in_a_file_of_security_are_named_and_its_values_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "security.json"
    path.write_text(json.dumps({"protocol": "s3cret", "username": ["s3cret"], "passwrd": "s3cret"}))
    with pytest.raises(ConfigError) as raised:
        load_part(str(path), KafkaSecurity)
    assert "passwrd: unknown key; did you mean 'password'?" in str(raised.value)
    assert "s3cret" not in str(raised.value)
