"""Folders named key=value, as Hive, Spark and pyarrow write them: their values are columns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.dataset as dataset
import pyarrow.parquet as pq
import pytest

from pipelines.connectors.files import source_files
from pipelines.connectors.files.partitions import partition_fields, partition_of
from tests.support import ledger
from tests.support.commands import Command
from tests.support.lacking_columns import write_without
from tests.support.ledger import FORMATS_IN, KEY, Row, assert_balanced, births, books_of, write_config, write_rows

FIXED = "--set=source.defaults=" + json.dumps({**ledger.DEFAULTS, "is_male": "True"})


def write_partitioned(folder: Path, format: str, rows: Sequence[Row], *names: str) -> list[str]:
    """Rows in a folder for all values of columns, which are not in the files; gives the folders' names."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        values = {
            name: "__HIVE_DEFAULT_PARTITION__" if row[name] is None else quote(str(row[name]).removesuffix(".0"))
            for name in names
        }
        parts.setdefault("/".join(f"{name}={value}" for name, value in values.items()), []).append(row)
    for part, found in parts.items():
        (folder / part).mkdir(parents=True)
        write_without(folder / part / f"part-0.{format}", format, found, *names)
    (folder / "_SUCCESS").write_bytes(b"")
    return sorted(parts)


@pytest.mark.parametrize("format", FORMATS_IN)
def test_values_of_folders_feed_the_model_and_are_written(command: Command, tmp_path: Path, format: str) -> None:
    """Numbers, texts with spaces, nulls; a replay has them from the dead letters alone."""
    names = ("plurality", "mother_race", "cigarette_use")
    rows = births(40, 8)
    bad = [{**row, "is_male": None} for row in rows[:6]]
    folders = write_partitioned(tmp_path / "in", format, bad + rows[6:], *names)
    assert any("=not%20heard%20of/cigarette_use=__HIVE_DEFAULT_PARTITION__" in folder for folder in folders)
    columns = [KEY, *names, "predictions"]
    config = write_config(tmp_path, format, str(tmp_path / "in"), "json", output={"columns": columns})
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    assert_balanced(books_of(tmp_path), rows[6:], {row[KEY]: None for row in bad})
    shutil.rmtree(tmp_path / "in")
    again = command("replay", "--config", config, "--json", FIXED)
    assert again.code == 0, again
    mended = [{**row, "is_male": "True"} for row in bad]
    books = books_of(tmp_path)
    assert_balanced(books, [*rows[6:], *mended], {})
    written = {row[KEY]: [row[name] for name in names] for row in books.output}
    expected = {row[KEY]: [row[name] for name in names] for row in rows}
    if format == "csv":
        # Without its source, a replay of CSV takes the values of folders for text, as those of the file.
        expected.update({row[KEY]: [f"{row['plurality']:.0f}", *expected[row[KEY]][1:]] for row in mended})
    assert written == expected


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_folders_value_identifies_rows_bad_ones_too(command: Command, tmp_path: Path, format: str) -> None:
    rows = births(5, 8)
    for row in rows:
        part = [{**row, "is_male": None}] if row is rows[0] else [row]
        (tmp_path / "in" / f"{KEY}={row[KEY]}").mkdir(parents=True)
        write_without(tmp_path / "in" / f"{KEY}={row[KEY]}" / f"a.{format}", format, part, KEY)
    broken = tmp_path / "in" / f"{KEY}=broken"
    broken.mkdir()
    (broken / f"a.{format}").write_bytes(b'is_male\n"' if format == "csv" else b"PAR1")
    config = write_config(tmp_path, format, str(tmp_path / "in"))
    assert command("batch", "--config", config).code == 0
    books = books_of(tmp_path)
    assert sorted(books.keys) == [row[KEY] for row in rows[1:]]
    assert sorted(books.letter_keys) == ["broken", rows[0][KEY]]
    assert {dead_letter["format"]["partition"][KEY] for dead_letter in books.dead_letters} == {"broken", rows[0][KEY]}


@pytest.mark.parametrize("format", FORMATS_IN)
def test_the_folders_value_counts_where_the_file_has_the_column_too(
    command: Command, tmp_path: Path, format: str
) -> None:
    """As in Spark; even where the file's values are of another kind."""
    rows = [{**row, "note": "no number"} for row in births(6, 8)]
    write_rows(tmp_path / "in" / "note=7" / f"a.{format}", format, rows)
    config = write_config(
        tmp_path, format, str(tmp_path / "in"), "json", output={"columns": [KEY, "note", "predictions"]}
    )
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    assert "note: in files, and in the names of their folders; the folders' values are taken" in result.err
    books = books_of(tmp_path)
    assert_balanced(books, rows, {})
    assert {row["note"] for row in books.output} == {7}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-20", "0"], [1, -20, 0]),
        (["1", "__HIVE_DEFAULT_PARTITION__"], [1, None]),
        (["1", "x"], ["1", "x"]),
        (["02134", "10001"], ["02134", "10001"]),
        (["1", "9223372036854775808"], ["1", "9223372036854775808"]),
        (["1.0", "2"], ["1.0", "2"]),
        (["New%20York", "a%2Fb", "50%25", "%C3%A9", "%E9"], ["New York", "a/b", "50%", "é", "\\xe9"]),
        (["x=y", ""], ["x=y", ""]),
        (["__HIVE_DEFAULT_PARTITION__"], [None]),
    ],
)
def test_values_have_a_type_that_loses_nothing(tmp_path: Path, values: list[str], expected: list[object]) -> None:
    for value in values:
        (tmp_path / f"k={value}").mkdir()
        (tmp_path / f"k={value}" / "a.csv").write_text("id\n1\n")
    files = source_files.find([str(tmp_path)]).files
    (field,) = partition_fields(files).values()
    texts = [dict(file.partition)["k"] for file in files]
    typed = pa.array(texts, pa.string()).cast(field.type).to_pylist()
    assert sorted(typed, key=str) == sorted(expected, key=str)


def test_pyarrow_reads_the_same(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3, 4], "year": [2001, 2001, 2002, None], "city": ["New York", "é/=", None, "x%20y"]})
    dataset.write_dataset(
        table,
        tmp_path,
        format="parquet",
        partitioning=dataset.partitioning(table.select(["year", "city"]).schema, flavor="hive"),
    )
    found = source_files.find([str(tmp_path)]).files
    fields = partition_fields(found)
    assert {name: field.type for name, field in fields.items()} == {"year": pa.int64(), "city": pa.string()}
    rows = []
    for file in found:
        partition = dict(file.partition)
        year = partition["year"]
        rows += [
            {"a": a, "year": None if year is None else int(year), "city": partition["city"]}
            for a in pq.ParquetFile(file.path).read()["a"].to_pylist()
        ]
    theirs = dataset.dataset(tmp_path, partitioning="hive").to_table().to_pylist()
    assert sorted(rows, key=lambda row: row["a"]) == sorted(theirs, key=lambda row: row["a"])


@pytest.mark.parametrize(
    ("folder", "base", "expected"),
    [
        ("/d/a=1/b=2", "/d", {"a": "1", "b": "2"}),
        ("/d/a=1/b=2/sub", "/d", {"a": "1", "b": "2"}),
        ("/d/x/a=1", "/d", {"a": "1"}),
        ("/d/a=1/x/b=2", "/d", {"b": "2"}),
        ("/run=5/d", "/run=5/d", {}),
        ("/run=5/d/a=1", "/run=5/d", {"a": "1"}),
        ("d", "d", {}),
        ("a=1", "", {"a": "1"}),
    ],
)
def test_which_folders_count(folder: str, base: str, expected: dict[str, str]) -> None:
    assert dict(partition_of(folder, base)) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "/*",
        "/year=*",
        "/**",
        "/**/*.csv",
        "/year=*/month=*/*.csv",
        "/year=2001",
        "/year=2001/month=2/*.csv",
        "/year=2001/month=2/x.csv",
    ],
)
def test_however_the_files_are_named_the_columns_are_the_same(tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "run=5" / "data" / "year=2001" / "month=2"
    folder.mkdir(parents=True)
    for name in ("x.csv", "_y.csv", ".z.csv"):
        (folder / name).write_text("id\n1\n")
    (folder / "_temporary" / "0").mkdir(parents=True)
    (folder / "_temporary" / "0" / "t.csv").write_text("id\n1\n")
    found = source_files.find([f"{tmp_path}/run=5/data{pattern}"])
    assert found.problems == []
    by_path = {file.path: dict(file.partition) for file in found.files if "_temporary" not in file.path}
    assert by_path == {f"{folder}/x.csv": {"year": "2001", "month": "2"}}


def test_a_circle_of_links_below_such_a_folder_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "in" / "year=1").mkdir(parents=True)
    (tmp_path / "in" / "year=1" / "a.csv").write_text("id\n1\n")
    (tmp_path / "in" / "year=2").symlink_to(tmp_path / "in")
    found = source_files.find([str(tmp_path / "in")])
    assert [dict(file.partition) for file in found.files] == [{"year": "1"}]
    assert "not entered: " in found.notes[0]


def test_a_file_outside_of_such_folders_misses_the_column(command: Command, tmp_path: Path) -> None:
    rows = births(8, 8)
    (tmp_path / "in" / "plurality=1").mkdir(parents=True)
    write_without(tmp_path / "in" / "plurality=1" / "a.csv", "csv", rows[:4], "plurality")
    write_without(tmp_path / "in" / "b.csv", "csv", rows[4:], "plurality")
    config = write_config(tmp_path, "csv", str(tmp_path / "in"))
    result = command("batch", "--config", config, "--json")
    assert f"{tmp_path}/in/b.csv has no column 'plurality': their rows become dead letters" in result.err
    good = [{**row, "plurality": 1.0} for row in rows[:4]]
    assert_balanced(books_of(tmp_path), good, {row[KEY]: None for row in rows[4:]})


def test_check_and_init_show_the_columns(command: Command, tmp_path: Path) -> None:
    write_partitioned(tmp_path / "in", "parquet", births(8, 8), "plurality")
    proposed = command("init", "--model", ledger.MODEL, "--source", str(tmp_path / "in"))
    assert proposed.code == 0, proposed
    assert "plurality" not in proposed.err
    checked = command("check", "--config", write_config(tmp_path, "parquet", str(tmp_path / "in")), "--json")
    assert {row["plurality"] for row in checked.summary["sample"]} == {1}
    assert {"input": "plurality", "type": "int64"}.items() <= next(
        row for row in checked.summary["inputs"] if row["input"] == "plurality"
    ).items()
