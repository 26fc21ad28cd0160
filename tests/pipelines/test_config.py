"""The committed schema and configs are those of the code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.config import __main__ as schema
from pipelines.config.load import load
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
