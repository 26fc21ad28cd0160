"""Bad rows of every kind among good ones, in every format: all are accounted for, and no neighbour changes."""

from __future__ import annotations

import dataclasses
import io
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from tests.support import ledger
from tests.support.commands import Command, Result
from tests.support.ledger import KEY, Row, assert_balanced, births, books_of, write_config, write_rows

Cut = Callable[[int, int], None]


def run(command: Command, folder: Path, format: str, path: Any, **changes: Any) -> Result:
    result = command("batch", "--config", write_config(folder, format, path, **changes), "--json")
    assert result.code == 0, result
    assert "Traceback" not in result.err
    return result


def assert_summary(result: Result, books: ledger.Books) -> None:
    summary = result.summary
    assert summary["rows_written"] == len(books.output)
    assert summary["rows_dead_lettered"] == books.letter_rows
    assert summary["rows_read"] == len(books.output) + books.letter_rows


# Text ---------------------------------------------------------------------------------------------------------------


def break_csv(row: Row, kind: str, rng: random.Random) -> bytes:
    """A row of CSV that cannot be predicted, for one of several reasons."""
    row = {**row, "note": "bad"}
    if kind == "too few columns":
        return ledger.csv_row(row).rsplit(b",", rng.randint(1, 5))[0]
    if kind == "too many columns":
        return ledger.csv_row(row) + b"," * rng.randint(1, 3)
    if kind == "not a number":
        return ledger.csv_row({**row, "mother_age": rng.choice(["old", "1 2", "0x10", "--3", "1e999", "1,5"])})
    if kind == "too large":
        return ledger.csv_row({**row, "plurality": "1e40"})
    if kind == "bad UTF-8":
        return ledger.csv_row({**row, "mother_race": "Q~"}).replace(
            b"Q~", rng.choice([b"\xff\xfe", b"caf\xe9", b"\xc3"])
        )
    if kind == "null in a required column":
        return ledger.csv_row({**row, rng.choice(["mother_age", "plurality", "is_male"]): None})
    if kind == "unclosed quote at the end":
        return ledger.csv_row({**row, "note": ""}) + b'"never closed'
    assert kind == "unclosed quote"
    return ledger.csv_row({**row, "mother_race": "Q~"}).replace(b"Q~", b'"White')


CSV_KINDS = (
    "too few columns",
    "too many columns",
    "not a number",
    "too large",
    "bad UTF-8",
    "null in a required column",
    "unclosed quote",
    "unclosed quote at the end",
)


def mixed_csv(rows: list[Row], rng: random.Random, end: bytes, bom: bool) -> tuple[bytes, list[Row], dict[str, bytes]]:
    """A file of good and bad rows; the good rows; the bad ones by key."""
    content, good, bad = [], [], {}
    for row in rows:
        if rng.random() < 0.06:
            raw = bad[row[KEY]] = break_csv(row, rng.choice(CSV_KINDS), rng)
        else:
            raw = ledger.csv_row(row, rng)
            good.append(row)
        content.append(raw + end * (1 if rng.random() < 0.95 else 2))
    return (b"\xef\xbb\xbf" if bom else b"") + ledger.HEADER + end + b"".join(content), good, bad


def test_csv(command: Command, tmp_path: Path, small_pieces: Cut) -> None:
    rng = random.Random(1)
    good, bad = [], {}
    for number, (end, bom) in enumerate([(b"\n", False), (b"\r\n", False), (b"\n", True), (b"\r\n", True)]):
        content, fine, broken = mixed_csv(births(900, number, f"f{number}-"), rng, end, bom)
        (tmp_path / f"in-{number}.csv").write_bytes(content)
        good += fine
        bad.update(broken)
    (tmp_path / "in-empty.csv").write_bytes(b"")
    (tmp_path / "in-header.csv").write_bytes(ledger.HEADER + b"\n")
    (tmp_path / "in-bare-header.csv").write_bytes(ledger.HEADER)
    result = run(command, tmp_path, "csv", str(tmp_path / "in-*.csv"))
    books = books_of(tmp_path)
    assert_balanced(books, good, bad)
    assert_summary(result, books)
    assert len(bad) > 150


def test_a_row_of_csv_that_ends_the_file_within_quotes(command: Command, tmp_path: Path) -> None:
    rows = births(20, 1)
    last = ledger.csv_row({**rows[-1], "note": "Q~"}).replace(b"Q~", b'"no end')
    content = ledger.lines([ledger.csv_row(row) for row in rows[:-1]], ledger.HEADER) + last
    (tmp_path / "in.csv").write_bytes(content)
    run(command, tmp_path, "csv", str(tmp_path / "in.csv"))
    assert_balanced(books_of(tmp_path), rows[:-1], {rows[-1][KEY]: last})


@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_row_of_50_mb(command: Command, tmp_path: Path, format: str) -> None:
    rows = births(400, 5)
    as_bytes = ledger.csv_row if format == "csv" else ledger.json_row
    giant = as_bytes({**rows[200], "note": "x" * 50_000_000})
    lines = [giant if number == 200 else as_bytes(row) for number, row in enumerate(rows)]
    file = tmp_path / "in.text"
    file.write_bytes(ledger.lines(lines, ledger.HEADER if format == "csv" else None))
    run(command, tmp_path, format, str(file))
    books = books_of(tmp_path)
    key = books.letters[0]["key"]
    if format == "json":  # its key may be anywhere in 50 MB
        assert key in (rows[200][KEY], f"{file}:{len(ledger.lines(lines[:200]))}")
    else:
        assert key == rows[200][KEY]
    assert_balanced(books, rows[:200] + rows[201:], {key: giant})


def test_a_file_whose_header_cannot_be_used(command: Command, tmp_path: Path) -> None:
    """It is one dead letter that holds the file; its neighbours do not suffer."""
    rows = births(40, 6)
    write_rows(tmp_path / "in-0.csv", "csv", rows[:20])
    twins = tmp_path / "in-1.csv"
    twins.write_bytes(write_rows(twins, "csv", rows[20:]).read_bytes().replace(b"is_male", b"mother_race", 1))
    run(command, tmp_path, "csv", str(tmp_path / "in-*.csv"))
    assert_balanced(books_of(tmp_path), rows[:20], {f"{twins}:0": twins.read_bytes()})
    assert "twice" in books_of(tmp_path).letters[0]["message"]


def break_json(row: Row, kind: str, rng: random.Random) -> tuple[bytes, bool]:
    """A row of JSON that cannot be predicted; whether its key can be told."""
    line = ledger.json_row({**row, "mother_race": "Q~"})
    if kind == "not JSON":
        return rng.choice([line[:-1], line[:-9], line.replace(b":", b"", 1), b"{", b"nonsense", line + b"}"]), False
    if kind == "not an object":
        return rng.choice([b"[1, 2]", b"7", b'"text"', b"null"]), False
    if kind == "not a number":
        return ledger.json_row({**row, "mother_age": rng.choice(["old", [1, 2], {"a": 1}])}), True
    if kind == "too large":
        return line.replace(b'"mother_age": ', b'"mother_age": 1e39, "was": '), True
    if kind == "bad UTF-8":
        return line.replace(b"Q~", b"\xff\xfe"), True
    if kind == "null in a required column":
        return ledger.json_row({**row, rng.choice(["mother_age", "is_male"]): None}), True
    assert kind == "missing"
    return ledger.json_row({name: value for name, value in row.items() if name != "plurality"}), True


JSON_KINDS = (
    "not JSON",
    "not an object",
    "not a number",
    "too large",
    "bad UTF-8",
    "null in a required column",
    "missing",
)


def test_json(command: Command, tmp_path: Path, small_pieces: Cut) -> None:
    rng = random.Random(2)
    good, bad = [], {}
    for number, end in enumerate([b"\n", b"\r\n", b"\n\n"]):
        file, content = tmp_path / f"in-{number}.jsonl", b""
        for row in births(700, 10 + number, f"f{number}-"):
            if rng.random() < 0.05:
                raw, named = break_json(row, rng.choice(JSON_KINDS), rng)
                bad[row[KEY] if named else f"{file}:{len(content)}"] = raw
            else:
                raw = ledger.json_row(row)
                good.append(row)
            content += raw + end
        file.write_bytes(content)
    (tmp_path / "in-empty.jsonl").write_bytes(b"")
    (tmp_path / "in-blank.jsonl").write_bytes(b"\n\n\r\n")
    result = run(command, tmp_path, "json", str(tmp_path / "in-*.jsonl"))
    books = books_of(tmp_path)
    assert_balanced(books, good, bad)
    assert_summary(result, books)
    assert len(bad) > 70


@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_truncated_gzip_file_among_good_ones(
    command: Command, tmp_path: Path, format: str, small_pieces: Cut
) -> None:
    good, cut = births(500, 1, "good"), births(500, 2, "cut")
    write_rows(tmp_path / "in-a.gz", format, good)
    broken = write_rows(tmp_path / "in-b.gz", format, cut)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    run(command, tmp_path, format, str(tmp_path / "in-*.gz"))
    # What is left of a CSV file may be too little to find its header in.
    assert_partly_read(tmp_path, good, cut, broken, some=None if format == "csv" else True)


def assert_partly_read(folder: Path, good: list[Row], cut: list[Row], broken: Path, *, some: bool | None) -> None:
    """All good rows are there; of the broken file a beginning, each row once, and dead letters name the file."""
    books = books_of(folder)
    readable = [row for row in cut if row[KEY] in books.keys]
    assert readable == cut[: len(readable)]
    assert len(readable) < len(cut)
    assert some is None or bool(readable) == some
    assert books.keys == Counter(row[KEY] for row in good + readable)
    ledger.assert_predictions(books, good + readable)
    assert books.letters
    assert all(letter["source"].startswith(f"{broken}:") for letter in books.letters)


# Tables -------------------------------------------------------------------------------------------------------------


def with_nulls(rows: list[Row], rng: random.Random) -> tuple[list[Row], list[Row], list[Row]]:
    """Rows of which some miss a value that has no default: all, the good ones, the bad ones."""
    everything, good, bad = [], [], []
    for row in rows:
        if rng.random() < 0.03:
            row = {**row, rng.choice(["mother_age", "is_male", "plurality"]): None}
            bad.append(row)
        else:
            good.append(row)
        everything.append(row)
    return everything, good, bad


def put(path: Path, format: str, data: pa.Table) -> None:
    if format == "parquet":
        pq.write_table(data, path, row_group_size=100)
    elif format == "orc":
        orc.write_table(data, path, stripe_size=4_000, batch_size=64)
    else:
        kinds = {"double": "double", "string": "string"}
        fields = [{"name": f.name, "type": ["null", kinds[str(f.type)]]} for f in data.schema]
        with path.open("wb") as file:
            schema = {"type": "record", "name": "birth", "fields": fields}
            fastavro.writer(file, schema, data.to_pylist(), sync_interval=2_000)


def damage_text(path: Path, mark: bytes, by: bytes) -> None:
    """Replaces a word of a file by bytes that are no text. The checksums of the formats here do not cover it."""
    content = path.read_bytes()
    assert mark in content
    path.write_bytes(content.replace(mark, by))


TABLES = ("parquet", "orc", "avro")


@pytest.mark.parametrize("format", TABLES)
def test_tables(command: Command, tmp_path: Path, format: str, small_pieces: Cut) -> None:
    """Nulls in required columns, and a file in which the numbers are texts, some of which are no numbers."""
    rng = random.Random(3)
    good, bad = [], []
    for number in range(3):
        everything, fine, broken = with_nulls(births(900, 20 + number, f"f{number}-"), rng)
        write_rows(tmp_path / f"in-{number}.{format}", format, everything)
        good += fine
        bad += broken
    words = births(300, 30, "words")
    wrong = words[::20]
    for row in words:
        row["mother_age"] = "old" if row in wrong else str(row["mother_age"])
    schema = ledger.SCHEMA.set(ledger.SCHEMA.get_field_index("mother_age"), pa.field("mother_age", pa.string()))
    put(tmp_path / f"in-words.{format}", format, ledger.table(words, schema))
    good += [row for row in words if row not in wrong]
    bad += wrong
    (tmp_path / f"in-empty.{format}").write_bytes(b"")
    put(tmp_path / f"in-no-rows.{format}", format, ledger.table([]))
    result = run(command, tmp_path, format, str(tmp_path / f"in-*.{format}"))
    books = books_of(tmp_path)
    assert_balanced(books, good, {row[KEY]: None for row in bad})
    assert_summary(result, books)
    originals = {row[KEY]: row for row in bad}
    for letter in books.letters:
        assert ledger.document(format, letter["payload"]) == [originals[letter["key"]]]


@pytest.mark.parametrize("format", TABLES)
def test_bad_text_in_tables(command: Command, tmp_path: Path, format: str, small_pieces: Cut) -> None:
    """One race in a column of a table is not UTF-8: written as bytes where the format allows, else patched."""
    rows = births(700, 40)
    bad = rows[50::100]
    for row in bad:
        row["mother_race"] = "Q~Q~"
    data, file = ledger.table(rows), tmp_path / f"in.{format}"
    if format == "parquet":
        pq.write_table(data, file, row_group_size=100, compression="none", use_dictionary=False, write_statistics=False)
    elif format == "orc":
        orc.write_table(data, file, stripe_size=4_000, batch_size=64, compression="uncompressed")
    else:
        put(file, format, data)
    damage_text(file, b"Q~Q~", b"\xff\xfe\xfa\xfb")
    run(command, tmp_path, format, str(file))
    books = books_of(tmp_path)
    bad_keys = {row[KEY] for row in bad}
    lost = books.letter_keys
    assert set(lost) == bad_keys or sum(lost.values()) == len(bad)
    assert_balanced(books, [row for row in rows if row[KEY] not in bad_keys], dict.fromkeys(lost))
    for letter in books.letters:
        assert b"\xff\xfe\xfa\xfb" in letter["payload"]


@pytest.mark.parametrize("format", [*TABLES, "tfrecord"])
def test_a_truncated_file_among_good_ones(command: Command, tmp_path: Path, format: str, small_pieces: Cut) -> None:
    good, cut = births(400, 50, "good"), births(1500, 51, "cut")
    write_rows(tmp_path / f"in-a.{format}", format, good)
    broken = write_rows(tmp_path / f"in-b.{format}", format, cut)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size * 2 // 3])
    result = run(command, tmp_path, format, str(tmp_path / f"in-*.{format}"))
    # Without its end, a file of Parquet or ORC tells nothing.
    assert_partly_read(tmp_path, good, cut, broken, some=format in ("avro", "tfrecord"))
    assert_summary(result, books_of(tmp_path))
    if format in ("parquet", "orc"):
        (letter,) = books_of(tmp_path).letters
        assert letter["key"] == f"{broken}:0"
        assert letter["payload"] == broken.read_bytes()


@pytest.mark.parametrize("format", [*TABLES, "tfrecord"])
def test_a_damaged_middle(command: Command, tmp_path: Path, format: str, small_pieces: Cut) -> None:
    """Noise amid a file: no row twice, no wrong prediction; what is lost is a dead letter each where it can be told."""
    rows = births(3000, 60)
    file = write_rows(tmp_path / f"in.{format}", format, rows)
    if format == "orc":  # only a compressed one notices damage
        orc.write_table(ledger.table(rows), file, stripe_size=4_000, batch_size=64, compression="zstd")
    content = bytearray(file.read_bytes())
    middle, size = len(content) // 2, len(content) // 5
    content[middle : middle + size] = random.Random(6).randbytes(size)
    file.write_bytes(content)
    result = run(command, tmp_path, format, str(file))
    books = books_of(tmp_path)
    assert_summary(result, books)
    assert books.letters
    assert len(books.output) < len(rows)
    if format in ("parquet", "orc"):  # these say elsewhere how many rows there are
        assert len(books.output) + books.letter_rows == len(rows)
    assert set(books.keys) <= {row[KEY] for row in rows}
    assert max(books.keys.values(), default=1) == 1
    ledger.assert_predictions(books, [row for row in rows if row[KEY] in books.keys])


def test_tfrecord(command: Command, tmp_path: Path, small_pieces: Cut) -> None:
    rng = random.Random(4)
    good, bad = [], {}
    for number in range(3):
        records = []
        for row in births(600, 70 + number, f"f{number}-"):
            if rng.random() < 0.04:
                row = {**row, **rng.choice([{"mother_age": None}, {"mother_age": "old"}, {"is_male": None}])}
                bad[row[KEY]] = ledger.example(row)
            else:
                good.append(row)
            records.append(ledger.example(row))
        ledger.write_records(tmp_path / f"in-{number}.tfrecord", records)
    (tmp_path / "in-empty.tfrecord").write_bytes(b"")
    result = run(command, tmp_path, "tfrecord", str(tmp_path / "in-*.tfrecord"))
    books = books_of(tmp_path)
    assert_balanced(books, good, bad)
    assert_summary(result, books)


def test_tfrecords_that_are_no_examples_or_have_a_wrong_checksum(
    command: Command, tmp_path: Path, small_pieces: Cut
) -> None:
    rows = births(300, 80)
    records = [ledger.example(row) for row in rows]
    records[100] = b"\x0a\xff not an example"
    file = tmp_path / "in.tfrecord"
    ledger.write_records(file, records)
    offsets = np.cumsum([0] + [len(record) + 16 for record in records]).tolist()
    content = bytearray(file.read_bytes())
    content[offsets[200] + 20] ^= 1
    file.write_bytes(content)
    run(command, tmp_path, "tfrecord", str(file))
    books = books_of(tmp_path)
    keys = {f"{file}:{offsets[100]}": None, f"{file}:{offsets[200]}": None}
    assert_balanced(books, [row for n, row in enumerate(rows) if n not in (100, 200)], keys)
    payloads = [letter["payload"] for letter in sorted(books.letters, key=lambda letter: letter["key"])]
    assert records[100] in payloads[0]
    assert bytes(content[offsets[200] + 12 : offsets[201] - 4]) in payloads[1]


# The model ----------------------------------------------------------------------------------------------------------


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
    assert {letter["stage"] for letter in books.letters} == {"predict"}
    assert all("a negative age" in letter["message"] for letter in books.letters)


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
    assert {letter["key"]: letter["payload"] for letter in books.letters} == {
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
    assert books.letters[0]["payload"] == raw[9]


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
    assert books.letters[0]["stage"] == "encode"
    (row,) = pq.read_table(io.BytesIO(books.letters[0]["payload"])).to_pylist()
    assert row["raw"] == b"\xff\xfe"
