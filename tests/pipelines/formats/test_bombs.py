"""Small files that become large: each is read in bounded memory, to its end, and every row of it is accounted for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support import bombs
from tests.support.bombs import MIB, NUMBERS_AND_TEXT, WORDS
from tests.support.memory import measure

MOST_BYTES = 1 << 30
"""Memory of a worker over that of a process that has read nothing."""

LINES = pa.schema([("line", pa.string())])
LISTS = pa.schema([("l", pa.list_(pa.int32()))])
MANY = pa.schema([(f"c{i}", pa.float64()) for i in range(60)])


@dataclass(frozen=True)
class Bomb:
    """A file, and what is to come of it.

    Attributes:
      format: its format.
      make: writes it to a path.
      columns: the columns wanted.
      rows: rows that it has.
      message: a part of the first dead letter's message; empty if there is none.
      letters: most dead letters.
    """

    format: str
    make: Callable[[Path], Path]
    columns: pa.Schema
    rows: int
    message: str = ""
    dead_letters: int = 1


def text(head: bytes, piece: bytes, times: int) -> Callable[[Path], Path]:
    return lambda path: bombs.repeated(path, head, piece, times)


HEAD = b"a,s\n"
BOMBS = {
    "quotes.csv.gz": Bomb("csv", text(HEAD, b'"' * (16 * MIB), 16), NUMBERS_AND_TEXT, 1, "row of 268,435,456 bytes"),
    "commas.csv.zst": Bomb("csv", text(HEAD, b"," * (16 * MIB), 16), NUMBERS_AND_TEXT, 1, "row of 268,435,456 bytes"),
    "newlines.csv.zst": Bomb("csv", text(HEAD + b'1,"', b"\n" * (8 * MIB), 4), NUMBERS_AND_TEXT, 1, "never closed"),
    "quotes.csv.bz2": Bomb("csv", text(HEAD, b'"' * (8 * MIB), 4), NUMBERS_AND_TEXT, 1, "row of 33,554,432 bytes"),
    "doubled.csv.gz": Bomb("csv", text(HEAD, b'1,"' + b'""' * (4 * MIB) + b'"x\n', 2), NUMBERS_AND_TEXT, 2),
    "unclosed.csv.gz": Bomb(
        "csv", text(HEAD, b'"",' + b'"' * (2 * MIB) + b',"x\n', 2), NUMBERS_AND_TEXT, 2, "never closed", 2
    ),
    "fields.csv.gz": Bomb("csv", text(HEAD, b"x\n" * 50_000, 2), NUMBERS_AND_TEXT, 100_000, "Expected 2", 100_000),
    "brackets.json.gz": Bomb("json", text(b"", b"[" * (16 * MIB), 16), NUMBERS_AND_TEXT, 1, "row of 268,435,456"),
    "newlines.txt.zst": Bomb("text", text(b"", b"\n" * (16 * MIB), 2), LINES, 32 * MIB),
    "returns.txt.zst": Bomb("text", text(b"", b"\r" * (16 * MIB), 1), LINES, 16 * MIB),
    "line.txt.gz": Bomb("text", text(b"", b"x" * (16 * MIB), 16), LINES, 1, "row of 268,435,456 bytes"),
    "bytes.txt.gz": Bomb("text", text(b"x", b"\xff\n" * 50_000, 2), LINES, 100_000, "not UTF-8", 100_000),
    "returns.json.zst": Bomb("json", text(b"", b"\r" * (8 * MIB), 2), NUMBERS_AND_TEXT, 0),
    "short.json.gz": Bomb("json", text(b"", b"{}\n" * MIB, 1), MANY, MIB),
    "text.parquet": Bomb(
        "parquet", lambda path: bombs.repeated_text(path, 20_000, 4 * MIB), NUMBERS_AND_TEXT, 20_000, "1000 times"
    ),
    "words.parquet": Bomb(
        "parquet",
        lambda path: bombs.repeated_text(path, 20_000, 4 * MIB),
        pa.schema([("s", WORDS)]),
        20_000,
        "1000 times",
    ),
    "prefixes.parquet": Bomb("parquet", bombs.shared_prefixes, NUMBERS_AND_TEXT, 270, "1000 times"),
    "lists.parquet": Bomb("parquet", bombs.long_lists, LISTS, 2, "80,000,000 values"),
    "page.parquet": Bomb("parquet", bombs.large_page, pa.schema([("d", pa.float64())]), 50_000_000, "packed to less"),
    "damaged.parquet": Bomb(
        "parquet", lambda path: bombs.unreadable(path, 20_000_000), NUMBERS_AND_TEXT, 20_000_000, "20,000,000 rows"
    ),
    "text.orc": Bomb("orc", bombs.repeated_text_orc, NUMBERS_AND_TEXT, 600, "1000 times"),
    "length.tfrecord": Bomb("tfrecord", bombs.huge_length, NUMBERS_AND_TEXT, 2, "a record of 1152921504606846976"),
    "members.tfrecord": Bomb("tfrecord", bombs.many_members, NUMBERS_AND_TEXT, 1),
    "zeros.tfrecord": Bomb(
        "tfrecord", lambda path: bombs.packed_zeros(path, 128), NUMBERS_AND_TEXT, 1, "length of a record"
    ),
    "numbers.tfrecord": Bomb("tfrecord", bombs.packed_numbers, pa.schema([("v", pa.list_(pa.int64()))]), 2),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_takes_bounded_memory_and_all_its_rows_are_accounted_for(tmp_path: Path, name: str) -> None:
    bomb = BOMBS[name]
    path = bomb.make(tmp_path / name)
    assert path.stat().st_size < 3 * MIB
    columns = bombs.schema_text(bomb.columns)
    done = measure("tests.support.bombs:read_all", bomb.format, str(path), columns, limit_bytes=12 << 30)
    assert done.code == 0, done.err[-2000:]
    found = done.result
    assert found["good"] + found["rejected"] == bomb.rows
    assert found["letters"] <= bomb.dead_letters
    assert found["letters"] if bomb.message else not found["letters"]
    assert bomb.message in "".join(found["messages"])
    assert done.peak - done.before < MOST_BYTES
