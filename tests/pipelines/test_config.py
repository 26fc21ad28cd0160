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


def test_mistakes_in_a_file_of_security_are_named_and_its_values_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "security.json"
    path.write_text(json.dumps({"protocol": "s3cret", "username": ["s3cret"], "passwrd": "s3cret"}))
    with pytest.raises(ConfigError) as raised:
        load_part(str(path), KafkaSecurity)
    assert "passwrd: unknown key; did you mean 'password'?" in str(raised.value)
    assert "s3cret" not in str(raised.value)
