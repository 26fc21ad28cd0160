"""The same rows through every format in and out: the same predictions, row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support import ledger
from tests.support.commands import Command
from tests.support.ledger import (
    EXTENSIONS,
    FORMATS_IN,
    FORMATS_OUT,
    assert_balanced,
    births,
    books_of,
    write_config,
    write_rows,
)

PAIRS = sorted(
    {(source, output) for source in FORMATS_IN for output in ("csv", "parquet")}
    | {("csv", output) for output in FORMATS_OUT}
)


@pytest.mark.parametrize(("source", "output"), PAIRS)
def test_predictions_do_not_depend_on_the_formats(command: Command, tmp_path: Path, source: str, output: str) -> None:
    rows = births(1_000, 1)
    for number, part in enumerate((rows[:600], rows[600:])):
        write_rows(tmp_path / "in" / f"{number}.{EXTENSIONS[source]}", source, part)
    result = command("batch", "--config", write_config(tmp_path, source, str(tmp_path / "in"), output), "--json")
    assert result.code == 0, result
    assert_balanced(books_of(tmp_path), rows, {})
    assert all(path.suffix == f".{EXTENSIONS[output]}" for path in ledger.shards(tmp_path / "out" / "p"))


@pytest.mark.parametrize("compression", ["gz", "bz2", "zst"])
@pytest.mark.parametrize("format", ["csv", "json"])
def test_compressed_text(command: Command, tmp_path: Path, format: str, compression: str) -> None:
    rows = births(1_000, 2)
    for number, part in enumerate((rows[:600], rows[600:])):
        write_rows(tmp_path / f"in-{number}.{format}.{compression}", format, part)
    config = write_config(tmp_path, format, str(tmp_path / f"in-*.{compression}"))
    result = command("batch", "--config", config)
    assert result.code == 0, result
    assert_balanced(books_of(tmp_path), rows, {})


@pytest.mark.parametrize(
    "paths", [["a/*.csv", "b/three.csv"], ["a", "b"], ["a/one.csv", "a/two.csv", "b/*"], "**/*.csv"], ids=str
)
def test_globs_lists_and_folders(command: Command, tmp_path: Path, paths: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = births(90, 3)
    for number, name in enumerate(["a/one", "a/two", "b/three"]):
        write_rows(tmp_path / "in" / f"{name}.csv", "csv", rows[number * 30 : number * 30 + 30])
    (tmp_path / "in" / "a" / ".hidden.csv").write_bytes(b"not CSV")
    monkeypatch.chdir(tmp_path / "in")
    result = command("batch", "--config", write_config(tmp_path, "csv", paths))
    assert result.code == 0, result
    assert_balanced(books_of(tmp_path), rows, {})


def test_a_file_that_two_patterns_match_is_read_once(command: Command, tmp_path: Path) -> None:
    rows = births(30, 4)
    file = str(write_rows(tmp_path / "in.csv", "csv", rows))
    result = command("batch", "--config", write_config(tmp_path, "csv", [file, str(tmp_path / "*.csv"), file]))
    assert result.code == 0, result
    assert_balanced(books_of(tmp_path), rows, {})


def test_files_whose_columns_differ(command: Command, tmp_path: Path) -> None:
    """Other order, more columns, a column that is missing and has a default, one that is missing and has none."""
    rows = births(80, 5)
    columns = [
        list(ledger.COLUMNS),
        list(reversed(ledger.COLUMNS)),
        [name for name in ledger.COLUMNS if name not in ("note", "cigarette_use")],
        [name for name in ledger.COLUMNS if name != "mother_age"],
    ]
    for row in rows[40:60]:
        row["cigarette_use"] = None
    for number, names in enumerate(columns):
        part = rows[number * 20 : number * 20 + 20]
        content = ledger.lines((ledger.csv_row(row, None, names) for row in part), ",".join(names).encode())
        (tmp_path / f"in-{number}.csv").write_bytes(content)
    result = command("batch", "--config", write_config(tmp_path, "csv", str(tmp_path / "in-*.csv")))
    assert result.code == 0, result
    assert_balanced(books_of(tmp_path), rows[:60], {row[ledger.KEY]: None for row in rows[60:]})


def test_a_file_whose_column_has_a_type_that_cannot_be_converted(command: Command, tmp_path: Path) -> None:
    """Its rows become dead letters; the other files do not suffer."""
    rows = births(40, 6)
    write_rows(tmp_path / "in-0.parquet", "parquet", rows[:20])
    data = ledger.table(rows[20:])
    dates = np.array(["2001-01-01"] * 20, "datetime64[s]")
    pq.write_table(data.drop_columns(["mother_age"]).append_column("mother_age", [dates]), tmp_path / "in-1.parquet")
    result = command("batch", "--config", write_config(tmp_path, "parquet", str(tmp_path / "in-*.parquet")))
    assert result.code == 0, result
    books = books_of(tmp_path)
    assert_balanced(books, rows[:20], {row[ledger.KEY]: None for row in rows[20:]})
    assert all("mother_age" in dead_letter["message"] for dead_letter in books.dead_letters)


def test_delimiter_null_values_and_column_names(command: Command, tmp_path: Path) -> None:
    rows = births(50, 7)
    fields = [[str(row[name]) if row[name] is not None else "NA" for name in ledger.COLUMNS[:-1]] for row in rows]
    (tmp_path / "in.txt").write_text("".join(";".join(row) + "\n" for row in fields))
    source = {"delimiter": ";", "null_values": ["NA"], "column_names": list(ledger.COLUMNS[:-1])}
    config = write_config(
        tmp_path, "csv", str(tmp_path / "in.txt"), source=source, output={"delimiter": "\t", "columns": ["predictions"]}
    )
    result = command("batch", "--config", config)
    assert result.code == 0, result
    (shard,) = ledger.shards(tmp_path / "out" / "p")
    header, *values = shard.read_text().splitlines()
    assert header == "predictions"
    assert [np.float32(value) for value in values] == ledger.direct(rows)


def test_other_column_names_and_a_list_of_outputs(command: Command, tmp_path: Path) -> None:
    rows = births(50, 8)
    lines = [json.dumps({"age" if k == "mother_age" else k: v for k, v in row.items()}).encode() for row in rows]
    (tmp_path / "in.jsonl").write_bytes(ledger.lines(lines))
    config = write_config(
        tmp_path,
        "json",
        str(tmp_path / "in.jsonl"),
        source={"columns": {"mother_age": "age"}},
        output={"columns": ["predictions", "age", ledger.KEY], "format": "json"},
    )
    result = command("batch", "--config", config)
    assert result.code == 0, result
    books = books_of(tmp_path)
    assert_balanced(books, rows, {})
    assert [list(row) for row in books.output] == [["predictions", "age", ledger.KEY]] * len(rows)
    assert {row[ledger.KEY]: row["age"] for row in books.output} == {row[ledger.KEY]: row["mother_age"] for row in rows}


def test_serialized_examples_go_to_a_model_that_parses_them(command: Command, tmp_path: Path) -> None:
    rows = births(200, 9)
    for row in rows:  # the model has defaults of its own for what is missing in a tf.Example
        row.update({name: row[name] or "Unknown" for name in ("cigarette_use", "alcohol_use")})
        row["gestation_weeks"] = row["gestation_weeks"] or 39.0
    for format in ("tfrecord", "csv"):
        file = write_rows(tmp_path / f"in.{format}", format, rows)
        config = write_config(
            tmp_path, format, str(file), source={"defaults": {}}, model={"signature": "serving_examples"}
        )
        result = command("batch", "--config", config)
        assert result.code == 0, result
        assert_balanced(books_of(tmp_path), rows, {})
