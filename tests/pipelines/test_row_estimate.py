"""How many rows a source has is estimated from little of it, where its format tells."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config.load import load
from pipelines.planning.planner import make_plan
from pipelines.planning.row_estimate import expected_rows
from tests.support.commands import ROOT
from tests.support.ledger import births, write_rows

COUNT = 40_000


def estimate(folder: Path, format: str, pattern: str) -> int | None:
    config = {
        "source": {"type": "file", "format": format, "path": str(folder / pattern)},
        "model": {"type": "saved_model", "path": str(ROOT / "model" / "trained" / "v1")},
        "output": {"type": "file", "format": "csv", "path": str(folder / "out" / "p"), "columns": ["predictions"]},
        "dead_letters": {"path": str(folder / "dead")},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return expected_rows(make_plan(load(str(path), [])))


def lines_of(count: int) -> list[str]:
    return [json.dumps(row) + "\n" for row in births(100, 1)] * (count // 100)


@pytest.mark.parametrize("files", [1, 20])
def test_lines_are_counted_in_the_beginning_of_the_largest_files(tmp_path: Path, files: int) -> None:
    for number in range(files):
        (tmp_path / f"{number}.jsonl").write_text("".join(lines_of(COUNT // files // (number % 2 + 1))))
    whole = COUNT if files == 1 else COUNT * 3 // 4
    assert estimate(tmp_path, "json", "*.jsonl") == pytest.approx(whole, rel=0.02)


def test_fields_that_span_lines_are_no_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.csv", "csv", births(3000, 1))
    # And the header.
    assert estimate(tmp_path, "csv", "a.csv") in (3000, 3001)


def test_packed_text_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("".join(lines_of(200)).encode()))
    assert estimate(tmp_path, "json", "a.jsonl.gz") is None


def test_parquet_says_it(tmp_path: Path) -> None:
    for number in range(3):
        pq.write_table(pa.Table.from_pylist(births(100, number) * 7), tmp_path / f"{number}.parquet")
    assert estimate(tmp_path, "parquet", "*.parquet") == 2100


def test_files_without_a_byte_have_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(lines_of(100)))
    (tmp_path / "b.jsonl").write_text("")
    assert estimate(tmp_path, "json", "*.jsonl") == 100
