"""Every row of a table that is damaged is in the output or in a dead letter: Avro, Parquet, ORC, TFRecord."""

from __future__ import annotations

import random
from pathlib import Path

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from tests.support import ledger
from tests.support.commands import Command
from tests.support.ledger import KEY, Row, assert_balanced, births, books_of, write_rows
from tests.support.ledger_runs import Cut, assert_partly_read, assert_summary, run


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
    for dead_letter in books.dead_letters:
        assert ledger.document(format, dead_letter["payload"]) == [originals[dead_letter["key"]]]


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
    for dead_letter in books.dead_letters:
        assert b"\xff\xfe\xfa\xfb" in dead_letter["payload"]


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
        (dead_letter,) = books_of(tmp_path).dead_letters
        assert dead_letter["key"] == f"{broken}:0"
        assert dead_letter["payload"] == broken.read_bytes()


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
    assert books.dead_letters
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
    payloads = [
        dead_letter["payload"] for dead_letter in sorted(books.dead_letters, key=lambda dead_letter: dead_letter["key"])
    ]
    assert records[100] in payloads[0]
    assert bytes(content[offsets[200] + 12 : offsets[201] - 4]) in payloads[1]
