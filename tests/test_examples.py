"""The examples run as they are, from any folder, and do what they say."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support import ledger, processes
from tests.support.commands import ROOT

EXAMPLES = ROOT / "examples"
BIRTHS = ROOT / "data" / "births-nc-2001.csv"


def run(name: str, folder: Path, *arguments: str) -> str:
    """What an example prints, run in a folder."""
    done = processes.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here() -> None:
    tested = {name for name in globals() if name.startswith("test_") and name != "test_every_example_is_run_here"}
    assert {f"test_{path.stem}" for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.parametrize("prefix", [(), ("somewhere/else",)], ids=["default", "given"])
def test_own_pipeline(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    """The births that it keeps are those that the model itself finds heavy."""
    out = run("own_pipeline.py", tmp_path, *prefix)
    name = f"{(*prefix, 'out/heavy')[0]}-00000-of-00001.parquet"
    assert out == f"wrote {name}\n"
    with BIRTHS.open(newline="") as file:
        births = [
            {field: birth.get(field) or None for field in (ledger.KEY, *ledger.TEXTS, *ledger.NUMBERS)}
            for birth in csv.DictReader(file)
        ]
    weights = zip(births, ledger.direct(births), strict=True)
    heavy = {str(birth[ledger.KEY]): weight for birth, weight in weights if weight > 8}
    kept = pq.read_table(tmp_path / name)
    assert kept.schema.names == [ledger.KEY, "mother_age", "predictions"]
    assert dict(zip(kept[ledger.KEY].to_pylist(), kept["predictions"].to_pylist(), strict=True)) == heavy
    assert 10 < len(heavy) < len(births)


def test_custom_protocol(tmp_path: Path) -> None:
    assert sorted(run("custom_protocol.py", tmp_path).splitlines()) == [
        "predicted: {'a': 8.0, 'b': 6.5, 'd': 8.0}",
        "refused: c: 400: an age is below zero",
    ]
