"""A comparison goes on only where it measures the same: config, data, models, machine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from model import packaged
from pipelines.comparison.results import Parity
from pipelines.comparison.session import ComparisonSession
from pipelines.config.errors import ConfigError
from pipelines.config.load import load_comparison

NAMES = "is_male,mother_age,plurality,gestation_weeks,mother_race,mother_married,cigarette_use,alcohol_use"
BIRTHS = NAMES + "\n" + 5 * "True,30,1,39,White,True,False,False\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A comparison of births, whose model, rows and other rows lie beside it."""
    shutil.copytree(packaged.located("model/trained/v1"), tmp_path / "model")
    shutil.copytree(tmp_path / "model", tmp_path / "other-model")
    for name in ("rows", "small"):
        (tmp_path / f"{name}.csv").write_text(BIRTHS)
    (tmp_path / "messages.jsonl").write_text('{"source_id": "1"}\n')
    run = {
        "source": {"type": "file", "format": "csv", "path": str(tmp_path / "rows.csv")},
        "model": {"path": str(tmp_path / "model")},
        "output": {"format": "csv", "path": str(tmp_path / "out")},
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    return tmp_path / "comparison.json"


def session(path: Path, **changes: Any) -> ComparisonSession:
    other = {"model": {"path": str(path.parent / "other-model")}}
    content = {
        "name": "same", "folder": str(path.parent / "results"), "config": str(path.parent / "run.json"),
        "ways": {"a": {"model": {}}, "b": other}, **changes,
    }  # fmt: skip
    path.write_text(json.dumps(content))
    return ComparisonSession(load_comparison(str(path)), str(path), lambda line: None)


def goes_on(path: Path, **changes: Any) -> bool:
    """Whether a session goes on where the one before was; leaves something to go on with."""
    with session(path, **changes) as made:
        found = made.goes_on
        made._journal.add_parity(Parity(way="a", reference="a"))
    return found


def test_nothing_has_changed(config: Path) -> None:
    assert not goes_on(config)
    assert goes_on(config)
    assert goes_on(config, minutes=9, volume=7)


def test_rows_have_changed(config: Path) -> None:
    goes_on(config)
    rows = config.parent / "rows.csv"
    rows.write_text(BIRTHS.replace("True", "False"))
    assert not goes_on(config)
    assert (config.parent / "results" / "same" / "earlier-runs.jsonl").exists()


def test_rows_have_changed_and_are_as_many_bytes(config: Path) -> None:
    rows = config.parent / "rows.csv"
    goes_on(config)
    os.utime(rows, ns=(rows.stat().st_atime_ns, rows.stat().st_mtime_ns + 1_000_000))
    assert not goes_on(config)


def test_the_model_of_a_way_has_changed(config: Path) -> None:
    goes_on(config)
    (config.parent / "other-model" / "variables" / "new").write_text("new")
    assert not goes_on(config)


def test_the_rows_of_one_size_have_changed(config: Path) -> None:
    small = config.parent / "small.csv"
    inputs = {"5": {"source.path": str(small)}}
    goes_on(config, inputs=inputs)
    assert goes_on(config, inputs=inputs)
    small.write_text(BIRTHS.replace("True", "False"))
    assert not goes_on(config, inputs=inputs)


def test_an_input_that_is_not_there_is_named(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"inputs\.5: source\.path: "):
        session(config, inputs={"5": {"source.path": str(config.parent / "absent.csv")}})


def test_the_messages_of_a_stream_have_changed(config: Path) -> None:
    run = json.loads((config.parent / "run.json").read_text())
    messages = config.parent / "messages.jsonl"
    run |= {"source": {"type": "simulated", "path": str(messages)}, "output": {"format": "json", "path": "out"}}
    (config.parent / "run.json").write_text(json.dumps(run))
    goes_on(config)
    assert goes_on(config)
    messages.write_text('{"source_id": "2", "is_male": "True"}\n')
    assert not goes_on(config)
