"""Models loaded on demand and ahead of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from inference.saved_model import loader as model_loader
from inference.saved_model.loader import ModelLoader
from model.errors import ModelError

MODEL = "model/trained/v1"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were loaded."""
    found: list[str] = []
    whole = model_loader.load

    def load(path: str, *args: object, **options: object) -> object:
        found.append(path)
        return whole(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(model_loader, "load", load)
    return found


def test_a_model_loaded_ahead_is_loaded_once(loads: list[str]) -> None:
    loader = ModelLoader()
    with loader.loaded_ahead(MODEL, "serving_default"):
        first = loader.load(MODEL, "serving_default")
        assert len(loads) == 1
        second = loader.load(MODEL, "serving_default")
    assert len(loads) == 2
    assert first is not second


def test_one_that_nobody_wanted_is_not_kept(loads: list[str]) -> None:
    loader = ModelLoader()
    with loader.loaded_ahead(MODEL, "serving_default"):
        pass
    loader.load(MODEL, "serving_default")
    assert len(loads) == 2
    assert not model_loader._ahead


def test_it_is_for_loads_of_the_same_kind_only(loads: list[str], tmp_path: Path) -> None:
    other = shutil.copytree(MODEL, tmp_path / "v1")
    with ModelLoader().loaded_ahead(MODEL, "serving_default"):
        ModelLoader(runtime="native").load(MODEL, "serving_default")
        ModelLoader().load(str(other), "serving_default")
        ModelLoader().load(MODEL, "serving_default")
    assert sorted(loads) == sorted([MODEL, MODEL, str(other)])


def test_a_load_ahead_that_failed_is_raised_by_the_load(tmp_path: Path) -> None:
    loader = ModelLoader()
    with loader.loaded_ahead(str(tmp_path), "serving_default"), pytest.raises(ModelError, match=str(tmp_path)):
        loader.load(str(tmp_path), "serving_default")
