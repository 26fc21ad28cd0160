"""Every row is in the output or in a dead letter, whatever the model does; keys and other columns stay as they are."""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import ledger
from tests.support.commands import Command
from tests.support.ledger import KEY, assert_balanced, births, books_of, write_rows
from tests.support.ledger_runs import Cut, run


@dataclasses.dataclass(frozen=True)
class Layout:
    """How rows get to the model: the model's batches and the files' blocks."""

    max_rows: int
    format: str


@pytest.mark.parametrize("layout", [Layout(1, "csv"), Layout(7, "json"), Layout(4096, "parquet")], ids=str)
def test_a_model_that_fails_on_whole_batches(
    command: Command, tmp_path: Path, small_pieces: Cut, strict_model: str, layout: Layout
) -> None:
    rows = births(600 if layout.max_rows == 1 else 3000, 90)
    bad = rows[3::97] + rows[500:520]
    for row in bad:
        row["mother_age"] = -1.0
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        write_rows(tmp_path / f"in-{number}.x", layout.format, part)
    changes: dict[str, Any] = {"model": {"path": strict_model}, "batching": {"max_rows": layout.max_rows}}
    run(command, tmp_path, layout.format, str(tmp_path / "in-*.x"), source={"defaults": {}}, **changes)
    bad_keys = {row[KEY] for row in bad}
    as_bytes = {"csv": ledger.csv_row, "json": ledger.json_row, "parquet": lambda row: None}[layout.format]
    books = books_of(tmp_path)
    good = [row for row in rows if row[KEY] not in bad_keys]
    assert_balanced(books, good, {row[KEY]: as_bytes(row) for row in bad}, strict_model)
    assert {dead_letter["stage"] for dead_letter in books.dead_letters} == {"predict"}
    assert all("a negative age" in dead_letter["message"] for dead_letter in books.dead_letters)


@pytest.mark.parametrize("max_rows", [1, 50, 4096])
def test_a_model_that_lies_about_its_output(command: Command, tmp_path: Path, lying_model: str, max_rows: int) -> None:
    """It leaves rows out. Laid beside the rows as they are, its predictions would slide to the wrong ones."""
    rows = births(300, 100)
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    changes: dict[str, Any] = {"model": {"path": lying_model}, "batching": {"max_rows": max_rows}}
    run(command, tmp_path, "csv", str(file), source={"defaults": {}}, **changes)
    books = books_of(tmp_path)
    left_out = [row for row in rows if row["mother_age"] > 40]
    assert books.letter_keys == Counter(row[KEY] for row in left_out)
    found = books.predictions
    assert found == {row[KEY]: np.float32(row["mother_age"] * 2) for row in rows if row not in left_out}


def test_keys_are_places_where_the_source_has_none(command: Command, tmp_path: Path, small_pieces: Cut) -> None:
    rows = births(500, 110)
    raw = [ledger.csv_row({**row, "mother_age": "old"} if n % 50 == 0 else row) for n, row in enumerate(rows)]
    file = tmp_path / "in.csv"
    file.write_bytes(ledger.lines(raw, ledger.HEADER))
    run(command, tmp_path, "csv", str(file), source={"key": None})
    offset, wanted = len(ledger.HEADER) + 1, {}
    for number, row in enumerate(rows):
        wanted[f"{file}:{offset}"] = (number, row)
        offset += len(raw[number]) + 1
    books = books_of(tmp_path)
    assert books.keys == Counter(key for key, (number, _) in wanted.items() if number % 50)
    assert books.letter_keys == Counter(key for key, (number, _) in wanted.items() if not number % 50)
    assert {dead_letter["key"]: dead_letter["payload"] for dead_letter in books.dead_letters} == {
        key: raw[number] for key, (number, _) in wanted.items() if not number % 50
    }
    good = {key: row for key, (number, row) in wanted.items() if number % 50}
    assert [books.predictions[key] for key in good] == ledger.direct(list(good.values()))


def test_a_row_without_a_key_is_named_by_its_place(command: Command, tmp_path: Path) -> None:
    rows = births(20, 111)
    rows[7][KEY] = None
    rows[9] = {**rows[9], KEY: None, "mother_age": None}
    file = tmp_path / "in.csv"
    raw = [ledger.csv_row(row) for row in rows]
    file.write_bytes(ledger.lines(raw, ledger.HEADER))
    run(command, tmp_path, "csv", str(file))
    offsets = np.cumsum([len(ledger.HEADER) + 1] + [len(line) + 1 for line in raw]).tolist()
    books = books_of(tmp_path)
    named = Counter(row[KEY] for row in rows if row[KEY])
    assert books.keys == named + Counter([f"{file}:{offsets[7]}"])
    assert books.letter_keys == Counter([f"{file}:{offsets[9]}"])
    assert books.dead_letters[0]["payload"] == raw[9]


def test_equal_keys_are_rows_of_their_own(command: Command, tmp_path: Path) -> None:
    rows = births(30, 112)
    for row in rows[10:]:
        row[KEY] = "twin"
    rows[12]["mother_age"] = None
    file = write_rows(tmp_path / "in.parquet", "parquet", rows)
    run(command, tmp_path, "parquet", str(file))
    books = books_of(tmp_path)
    assert books.keys == Counter([row[KEY] for row in rows[:10]] + ["twin"] * 19)
    assert books.letter_keys == Counter(["twin"])
    wanted = Counter(float(value) for row, value in zip(rows, ledger.direct(rows[:12] + rows[13:]), strict=False))
    assert Counter(float(np.float32(row["predictions"])) for row in books.output) == wanted


def test_other_columns_pass_through_unchanged(command: Command, tmp_path: Path, small_pieces: Cut) -> None:
    rows = births(400, 113)
    file = write_rows(tmp_path / "in.parquet", "parquet", rows)
    columns = ["note", KEY, "predictions", "gestation_weeks"]
    for format in ("parquet", "json"):
        run(command, tmp_path, "parquet", str(file), output={"format": format, "columns": columns})
        found = {row[KEY]: (row["note"], row["gestation_weeks"]) for row in books_of(tmp_path).output}
        assert found == {row[KEY]: (row["note"], row["gestation_weeks"]) for row in rows}
    run(command, tmp_path, "parquet", str(file), output={"format": "csv", "columns": columns})
    notes = {row[KEY]: row["note"] for row in books_of(tmp_path).output}
    assert notes == {row[KEY]: row["note"] for row in rows}


def test_text_that_cannot_be_encoded_leaves_its_neighbours(command: Command, tmp_path: Path) -> None:
    """A column of bytes that are mostly text, written where only text can stand."""
    rows = births(50, 114)
    data = ledger.table(rows).append_column("raw", pa.array([b"ok"] * 49 + [b"\xff\xfe"], pa.binary()))
    pq.write_table(data, tmp_path / "in.parquet")
    columns = [KEY, "predictions", "raw"]
    run(command, tmp_path, "parquet", str(tmp_path / "in.parquet"), output={"columns": columns})
    books = books_of(tmp_path)
    assert_balanced(books, rows[:-1], {rows[-1][KEY]: None})
    assert books.dead_letters[0]["stage"] == "encode"
    (row,) = pq.read_table(io.BytesIO(books.dead_letters[0]["payload"])).to_pylist()
    assert row["raw"] == b"\xff\xfe"
