"""Packaged files are found under their names of the checkout: from any folder, installed or not, on any machine."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from inference.saved_model.handler import SavedModelHandler
from model import packaged
from pipelines.config.load import load
from tests.support.commands import ROOT, Command

BIRTHS = "data/births-nc-2001.csv"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with nothing in it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files as a wheel lays them out, below a folder whose name looks like a glob."""
    packages = tmp_path / "site[1]"
    for name in ("configs", "data"):
        shutil.copytree(ROOT / name, packages / "model" / "packaged" / name)
    shutil.copytree(ROOT / "model" / "trained", packages / "model" / "trained")
    monkeypatch.setattr(packaged, "_HERE", packages / "model" / "packaged")
    monkeypatch.setattr(packaged, "_PACKAGES", packages)
    return packages


@pytest.mark.parametrize("name", [BIRTHS, "configs/natality.json", "model/trained/v1", "model/trained/v1/"])
def test_a_packaged_file_is_found_in_a_checkout(name: str, elsewhere: Path) -> None:
    assert packaged.find(name) == packaged.located(name) == str(ROOT / name)
    assert packaged.name_of(str(ROOT / name)) == name.rstrip("/")
    assert not packaged.is_installed()


@pytest.mark.parametrize(
    "name", ["README.md", "out/x", "configs/none.json", "../x", "data/../README.md", "data/none-*"]
)
def test_what_is_not_packaged(name: str, elsewhere: Path) -> None:
    assert packaged.find(name) is None
    assert packaged.located(name) == name


@pytest.mark.parametrize("name", ["/data/births-nc-2001.csv", "gs://bucket/data/births-nc-2001.csv"])
def test_only_relative_names_are_looked_for(name: str) -> None:
    assert packaged.located(name) == name


def test_a_file_of_the_working_directory_comes_first(elsewhere: Path) -> None:
    (elsewhere / "data").mkdir()
    (elsewhere / "data" / "births-mine.csv").write_text("source_id\n")
    assert packaged.located("data/births-*.csv") == "data/births-*.csv"
    assert packaged.located(BIRTHS) == str(ROOT / BIRTHS)


def test_a_packaged_file_is_found_in_an_installation(installation: Path, elsewhere: Path) -> None:
    assert packaged.is_installed()
    assert packaged.find(BIRTHS) == str(installation / "model" / "packaged" / BIRTHS)
    assert packaged.find("model/trained/v1") == str(installation / "model" / "trained" / "v1")
    assert packaged.name_of(str(installation / "model" / "packaged" / BIRTHS)) == BIRTHS
    assert packaged.name_of(str(installation / "model" / "trained" / "v1")) == "model/trained/v1"
    assert packaged.name_of(str(ROOT / BIRTHS)) is None


def test_an_installed_config_runs_from_anywhere(installation: Path, elsewhere: Path, command: Command) -> None:
    result = command("batch", "--json")
    assert result.code == 0, result
    assert result.summary["rows_written"] == 1450
    assert [path.name for path in elsewhere.iterdir()] == ["out"]


def test_only_a_packaged_config_reads_packaged_data(elsewhere: Path, command: Command) -> None:
    assert load(None).source.path == str(ROOT / "data" / "births-*.csv")
    assert load("configs/natality-endpoint.json").source.path == str(ROOT / "data" / "births-*.csv")
    assert load(None, ["source.path=data/births-*.csv"]).source.path == "data/births-*.csv"
    shutil.copy(ROOT / "configs" / "natality.json", "mine.json")
    assert load("mine.json").source.path == "data/births-*.csv"
    result = command("check", "--config", "mine.json")
    assert result.code == 2
    assert "source.path: nothing matches data/births-*.csv" in result.errors[0]


def test_a_packaged_model_is_found_again_on_another_machine(
    elsewhere: Path, installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler is pickled where the job is built, and its worker has the packages somewhere else."""
    handler = SavedModelHandler("model/trained/v1")
    assert handler.path == str(installation / "model" / "trained" / "v1")
    pickled = pickle.dumps(handler)
    monkeypatch.setattr(packaged, "_HERE", ROOT / "model" / "packaged")
    monkeypatch.setattr(packaged, "_PACKAGES", ROOT)
    found = pickle.loads(pickled)
    assert found.path == str(ROOT / "model" / "trained" / "v1")
    found.load_model()
    own = shutil.copytree(ROOT / "model" / "trained", elsewhere / "model" / "trained")
    assert pickle.loads(pickle.dumps(SavedModelHandler(str(own / "v1")))).path == str(own / "v1")
