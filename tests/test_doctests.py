"""Every example in a docstring runs, and gives what stands below it."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

from tests.support.commands import ROOT

PACKAGES = ("model", "inference", "pipelines")
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if ">>>" in path.read_text("utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any folder; and all that are written there are found."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failed, attempted = doctest.testmod(module)
    written = inspect.getsource(module).count(">>>")
    assert (failed, attempted) == (0, written)


def test_there_are_examples_of_each_package() -> None:
    assert len(MODULES) >= 30
    assert {name.split(".")[0] for name in MODULES} == set(PACKAGES)
