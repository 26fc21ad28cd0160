"""The folder of a comparison: one command at a time, nobody else's files removed, and a disk that is too small."""

from __future__ import annotations

import errno
import json
import os
from collections import namedtuple
from pathlib import Path

import pytest

from pipelines.comparison import folder as folders
from pipelines.comparison.folder import ResultsFolder, put_aside
from pipelines.comparison.publishing import publish
from pipelines.config.comparison import ComparisonConfig
from pipelines.config.errors import ConfigError
from pipelines.cost.prices import load as load_prices
from tests.support import comparison_results

Usage = namedtuple("Usage", "total used free")


def names(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def ended_by(error: BaseException, place: Path) -> None:
    with ResultsFolder(place, "ways") as held:
        (held.work / "inputs" / "rows-10").mkdir()
        (held.work / "outputs" / "0001").mkdir()
        raise error


def test_what_it_has_made_goes_and_what_others_have_put_there_stays(tmp_path: Path) -> None:
    place = tmp_path / "results"
    (place / "work").mkdir(parents=True)
    (place / "work" / "mine.txt").write_text("mine")
    with ResultsFolder(place, "ways") as held:
        (held.work / "inputs" / "rows-10").mkdir()
        (held.work / "outputs" / "0001").mkdir()
        (held.work / "logs" / "command.log").write_text("said")
    assert names(place) == ["work", "work/mine.txt"]


def test_what_was_made_for_nothing_goes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no rows"), ResultsFolder(tmp_path / "a" / "b", "ways"):
        raise ConfigError(["no rows"])
    assert names(tmp_path) == []


def test_what_was_interrupted_keeps_its_inputs(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ended_by(KeyboardInterrupt(), tmp_path)
    assert "work/inputs/rows-10" in names(tmp_path)
    assert "work/outputs/0001" not in names(tmp_path)
    with ResultsFolder(tmp_path, "ways") as again:
        assert (again.work / "inputs" / "rows-10").exists()
        again.empty_work()
        assert not (again.work / "inputs" / "rows-10").exists()
    assert names(tmp_path) == []


@pytest.mark.parametrize("listed", ["", "not a list", '{"inputs": 1}', '["outputs"]'])
def test_a_folder_that_no_comparison_has_made_is_refused(tmp_path: Path, listed: str) -> None:
    (tmp_path / "work" / "inputs").mkdir(parents=True)
    (tmp_path / "work" / "inputs" / "mine.csv").write_text("mine")
    if listed:
        (tmp_path / "work" / ".made-by-compare").write_text(listed)
    with pytest.raises(ConfigError, match="no comparison has made it; move it away"), ResultsFolder(tmp_path, "ways"):
        pass
    assert (tmp_path / "work" / "inputs" / "mine.csv").read_text() == "mine"


def test_a_second_command_is_refused_in_one_line(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path, "ways"):
        with pytest.raises(ConfigError) as refused, ResultsFolder(tmp_path, "ways"):
            pass
        assert len(refused.value.problems) == 1
        assert "is in use by run 'ways' (" in refused.value.problems[0]
        assert f"process {os.getpid()}" in refused.value.problems[0]
        assert (tmp_path / "work" / "inputs").is_dir()
    with ResultsFolder(tmp_path, "ways"):
        pass


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as refused, ResultsFolder(tmp_path / "file" / "ways", "ways"):
        pass
    (problem,) = refused.value.problems
    assert "cannot be made" in problem
    assert "--output" in problem


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_in_one_line_and_inputs_go(tmp_path: Path, number: int) -> None:
    with pytest.raises(ConfigError) as refused:
        ended_by(OSError(number, os.strerror(number)), tmp_path)
    (problem,) = refused.value.problems
    assert f"the disk of {tmp_path} is full" in problem
    assert "--output" in problem
    assert names(tmp_path) == []


def test_a_run_that_fails_on_a_full_disk_says_nothing_of_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ResultsFolder(tmp_path, "ways") as held:
        held.refuse_if_full("exit code 1: the model fails")
        with pytest.raises(OSError, match="No space left"):
            held.refuse_if_full("exit code 1: OSError: [Errno 28] No space left on device")
        monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 0))
        with pytest.raises(OSError, match="No space left"):
            held.refuse_if_full("exit code 1: it said nothing")


def test_inputs_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: Usage(0, 0, 5_000_000))
    with ResultsFolder(tmp_path, "ways") as held:
        held.require_room(5_000_000)
        with pytest.raises(ConfigError, match=r"need 1\.5 GB, and .* has 5\.0 MB free; compare smaller sizes"):
            held.require_room(1_500_000_000)


def test_putting_aside_replaces_nothing(tmp_path: Path) -> None:
    for text in ("one", "two", "three"):
        (tmp_path / "runs.jsonl").write_text(text)
        put_aside(tmp_path / "runs.jsonl")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"earlier-runs.jsonl": "one", "earlier-2-runs.jsonl": "two", "earlier-3-runs.jsonl": "three"}


@pytest.mark.parametrize("foreign", ["my results", '{"accuracy": 0.9}', None])
def test_results_of_others_are_kept_beside_under_another_name(tmp_path: Path, foreign: str | None) -> None:
    config = ComparisonConfig(name="mine", config="run.json")
    results = comparison_results.batch()
    content = json.dumps({"name": "other", "kind": "batch", "manifest": {}, "rankings": []})
    (tmp_path / "results.json").write_text(content if foreign is None else foreign)
    (tmp_path / "report.html").write_text("my page")
    found = publish(results, config, load_prices(), tmp_path)
    assert (tmp_path / "earlier-results.json").read_text() == (content if foreign is None else foreign)
    assert (tmp_path / "earlier-report.html").read_text() == "my page"
    assert len(found.notes) == 2
    assert "it is kept as earlier-results.json" in found.notes[0]
    assert publish(results, config, load_prices(), tmp_path).notes == ()
    assert not (tmp_path / "earlier-2-results.json").exists()
