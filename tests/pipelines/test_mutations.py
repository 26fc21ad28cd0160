"""Two thousand broken copies of a good file, in one run: rows are right or dead letters, and nothing ends the run."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import ledger
from tests.support.commands import Command
from tests.support.ledger import KEY, births, read_shard, shards, write_config, write_rows
from tests.support.mutations import mutated

MUTATIONS = 2_000
ROWS = 12
PASSED = (KEY, "mother_race", "note")


def text(value: Any) -> str:
    """A value as it is compared: a missing text is an empty one in CSV."""
    return "" if value is None else str(value)


def expected_rows(format: str, content: bytes, originals: dict[str, ledger.Row]) -> Iterator[dict[str, Any]]:
    """What another reader makes of the rows of a file, where there is one for single rows; else the original rows."""
    if format == "json":
        for line in content.split(b"\n"):
            try:
                # A name that is not UTF-8 is another name, and its column is missing.
                row = json.loads(line.decode("utf-8", "replace"), strict=False)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row
    else:
        yield from originals.values()


@pytest.mark.parametrize("format", ledger.FORMATS_IN)
def test_broken_copies(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    # A broken copy could keep pyarrow's ORC reader busy.
    monkeypatch.setattr("pipelines.formats.orc.file.CPU_S", 2)
    rows = births(ROWS, 7)
    good = write_rows(tmp_path / "good", format, rows).read_bytes()
    rng = random.Random(format)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"0.{format}").write_bytes(good)
    copies = {number: mutated(good, rng) for number in range(1, MUTATIONS + 1)}
    for number, content in copies.items():
        (tmp_path / "in" / f"{number}.{format}").write_bytes(content)
    config = write_config(
        tmp_path,
        format,
        str(tmp_path / "in"),
        "json",
        source={"key": None},
        output={"columns": ["key", *PASSED, "mother_age", "predictions"]},
    )
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    assert "Traceback" not in result.err
    found = [row for path in shards(tmp_path / "out" / "p") for row in read_shard(path)]
    dead = ledger.dead_letters(tmp_path / "out" / "dead")
    summary = result.summary
    assert summary["rows_written"] == len(found) == ledger.recounted(tmp_path / "out" / "p")
    assert summary["rows_dead_lettered"] == sum(dead_letter.get("rows", 1) for dead_letter in dead)
    assert summary["rows_read"] == len(found) + summary["rows_dead_lettered"]
    assert len({row["key"] for row in found}) == len(found), "a row was written twice"
    assert not {row["key"] for row in found} & {dead_letter["key"] for dead_letter in dead}
    assert len(found) > MUTATIONS / 8, "many rows are as they were"
    by_file: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        by_file.setdefault(row["key"].rpartition(":")[0], []).append(row)
    originals = {row[KEY]: row for row in rows}
    check_values(format, tmp_path / "in", by_file, originals)


def check_values(
    format: str, folder: Path, by_file: dict[str, list[dict[str, Any]]], originals: dict[str, ledger.Row]
) -> None:
    """Values that were written are those that stand in the files, as another reader finds them."""
    for path, written in by_file.items():
        content = Path(path).read_bytes()
        if format == "csv":
            try:
                header, *lines = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
            except (UnicodeDecodeError, csv.Error, ValueError):
                continue
            known = [dict(zip(header, line, strict=True)) for line in lines if len(line) == len(header)]
        elif format in ("json", "tfrecord"):
            # A TFRecord has checksums: what is read is what was written.
            known = list(expected_rows(format, content, originals))
        else:
            continue
        values = {tuple(text(row.get(name)) for name in PASSED) for row in known}
        for row in written:
            assert tuple(text(row[name]) for name in PASSED) in values, (path, row)
