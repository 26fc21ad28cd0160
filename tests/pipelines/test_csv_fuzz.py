"""Our reading of CSV against that of Python's csv module, wherever the file is cut."""

from __future__ import annotations

import csv
import io
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.formats import ReadSpec, Split, reader_class, row_finder
from pipelines.formats import text_blocks as our_text
from pipelines.formats.csv import reader as our_csv
from pipelines.rows.origin import Block, RejectedRow

NAMES = ("k", "a", "b")
HEADER = b"k,a,b\n"
SPEC = ReadSpec(pa.schema([(name, pa.string()) for name in NAMES]), {}, "k")

# Pieces that, put together, look like rows, quotes, line ends and half of each.
PIECES = [
    "x",
    "",
    " ",
    ",",
    '"',
    '""',
    "\n",
    "\r\n",
    ',"',
    '",',
    '"\n',
    '\n"',
    "1,2,3",
    "\n1,2,3\n",
    '"1","2","3"',
    "é☃",
]
fields = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
rows_of_fields = st.lists(st.tuples(fields, fields, fields), min_size=1, max_size=12)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, list[list[str]]]:
    """A well-formed file, and what Python's csv module reads in it."""
    rows = draw(rows_of_fields)
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    always = draw(st.booleans())
    content = b"k,a,b" + end
    for row in rows:
        line = ",".join(quoted(field, always or draw(st.booleans())) for field in row).encode()
        content += line + end * draw(st.sampled_from([1, 1, 1, 2]))
    if draw(st.booleans()):
        content = content.rstrip(b"\r\n") if not content.endswith(b'"\n') else content[: -len(end)]
    bom = draw(st.booleans())
    return (b"\xef\xbb\xbf" if bom else b"") + content, expected(content)


def quoted(field: str, always: bool) -> str:
    if always or any(c in field for c in ',"\r\n'):
        return '"' + field.replace('"', '""') + '"'
    return field


def expected(content: bytes) -> list[list[str]]:
    rows = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))
    return [row for row in rows[1:] if row]


def pieces_of(
    path: Path, split_bytes: int, block_bytes: int, window: int, spec: ReadSpec = SPEC
) -> list[Block | RejectedRow]:
    """All that our reader finds, split by split; checks that the splits cover the file once."""
    with (
        mock.patch.object(our_text, "BLOCK_BYTES", block_bytes),
        mock.patch.object(our_csv, "_WINDOW", window),
        mock.patch.object(row_finder, "_WINDOW", window),
    ):
        reader = reader_class("csv")(spec)
        size = path.stat().st_size
        splits: list[Split] = reader.splits(str(path), size, split_bytes)
        for left, right in zip(splits, splits[1:], strict=False):
            assert left.end == right.start
        assert not splits or splits[-1].end == size
        return [piece for split in splits for piece in reader.read(split)]


def read(path: Path, split_bytes: int, block_bytes: int, window: int = 1 << 20) -> list[list[str]]:
    """The rows, in the order of the file; checks that each row's position and bytes are the file's own."""
    content = path.read_bytes()
    found = []
    for piece in pieces_of(path, split_bytes, block_bytes, window):
        assert isinstance(piece, Block), piece
        positions = piece.origin.positions().tolist()
        assert len(positions) == piece.batch.num_rows
        for index, row in enumerate(piece.batch.to_pylist()):
            payload, position = piece.origin.payload(index), positions[index]
            assert content[position : position + len(payload)] == payload
            values = [row[name] or "" for name in NAMES]
            assert next(csv.reader(io.StringIO(payload.decode(), newline=""))) == values
            found.append((position, values))
    assert found == sorted(found)
    return [values for _, values in found]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Fields as long as ours may be, and no warning for each file that is not cut."""
    limit = csv.field_size_limit(1 << 30)
    logging.getLogger(our_csv.__name__).setLevel(logging.ERROR)
    yield
    logging.getLogger(our_csv.__name__).setLevel(logging.NOTSET)
    csv.field_size_limit(limit)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv") / "in.csv"


@settings(max_examples=300)
@given(
    file=files(),
    split_bytes=st.sampled_from([1, 2, 3, 5, 8, 13, 40, 10_000]),
    block_bytes=st.sampled_from([1, 2, 7, 30, 8 << 20]),
)
@example(file=(HEADER + b'1,"\n2,x,y\n",3\n', [["1", "\n2,x,y\n", "3"]]), split_bytes=1, block_bytes=1)
@example(file=(HEADER + b'1,"\n,""\n,",3\n2,,\n', [["1", '\n,"\n,', "3"], ["2", "", ""]]), split_bytes=1, block_bytes=3)
def test_well_formed_files(path: Path, file: tuple[bytes, list[list[str]]], split_bytes: int, block_bytes: int) -> None:
    content, rows = file
    path.write_bytes(content)
    assert read(path, split_bytes, block_bytes) == rows


OTHERS = [("cp1252", ";", "'"), ("latin-1", "\t", '"'), ("utf-16", "|", "'"), ("shift_jis", ";", '"')]


@settings(max_examples=150)
@given(
    file=files(),
    other=st.sampled_from(OTHERS),
    split_bytes=st.sampled_from([1, 3, 8, 40, 10_000]),
    block_bytes=st.sampled_from([1, 2, 7, 30, 8 << 20]),
)
def test_other_delimiters_quotes_and_encodings(
    path: Path, file: tuple[bytes, list[list[str]]], other: tuple[str, str, str], split_bytes: int, block_bytes: int
) -> None:
    """The same files, written in other ways, have the same rows; dead letters and positions are the file's own."""
    encoding, delimiter, quote = other
    dead_letters = {"é": "¥", "☃": "¥"} if encoding != "shift_jis" else {"é": "表", "☃": "能"}
    table = str.maketrans({",": delimiter, '"': quote, **dead_letters})
    raw = file[0].decode("utf-8-sig").translate(table).encode(encoding)
    path.write_bytes(raw)
    options = {"encoding": encoding, "delimiter": delimiter, "quote": quote}
    found = []
    for piece in pieces_of(path, split_bytes, block_bytes, 1 << 20, ReadSpec(SPEC.columns, options, "k")):
        assert isinstance(piece, Block), piece
        found += [[row[name] or "" for name in NAMES] for row in piece.batch.to_pylist()]
        for index, position in enumerate(piece.origin.positions().tolist() if encoding != "utf-16" else []):
            payload = piece.origin.payload(index)
            assert raw[position : position + len(payload)] == payload
    assert found == [[field.translate(table) for field in row] for row in file[1]]


@settings(max_examples=100)
@given(
    lines=st.lists(st.lists(st.sampled_from(["x", '"', "", "é", '"a"']), min_size=3, max_size=3), max_size=20),
    split_bytes=st.sampled_from([1, 3, 8, 10_000]),
    block_bytes=st.sampled_from([1, 2, 7, 8 << 20]),
)
def test_tables_without_quotes(path: Path, lines: list[list[str]], split_bytes: int, block_bytes: int) -> None:
    """A quote is a character as any other."""
    path.write_text("k\ta\tb\n" + "".join("\t".join(line) + "\n" for line in lines))
    spec = ReadSpec(SPEC.columns, {"delimiter": "\t", "quote": "", "null_values": []}, "k")
    pieces = pieces_of(path, split_bytes, block_bytes, 1 << 20, spec)
    found = [list(row.values()) for piece in pieces if isinstance(piece, Block) for row in piece.batch.to_pylist()]
    assert found == lines


@settings(max_examples=200)
@given(file=files(), split_bytes=st.sampled_from([1, 3, 8, 40]), window=st.sampled_from([16, 24, 64, 200]))
def test_well_formed_files_seen_through_a_small_window(
    path: Path, file: tuple[bytes, list[list[str]]], split_bytes: int, window: int
) -> None:
    """As in a file that is much larger than what is looked at to find the beginning of a row."""
    content, rows = file
    path.write_bytes(content)
    assert read(path, split_bytes, 8 << 20, window) == rows


@pytest.mark.parametrize("quotes_inside", [False, True], ids=["", "quotes inside"])
def test_a_long_quoted_field_whose_lines_look_like_rows(path: Path, quotes_inside: bool) -> None:
    """Longer than the window that is searched for the beginning of a row."""
    lookalike = '7,8,"9"\n' if quotes_inside else "7,8,9\n"
    document = lookalike * 500_000
    content = HEADER + b'1,"' + document.replace('"', '""').encode() + b'",2\n' + b"3,4,5\n" * 100
    path.write_bytes(content)
    rows = read(path, 1 << 20, 8 << 20)
    assert len(rows) == 101
    assert rows[0] == ["1", document, "2"]


@pytest.mark.parametrize("seed", range(3))
def test_many_rows_and_many_cuts(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    content = HEADER
    for _ in range(3_000):
        row = ["".join(rng.choices(PIECES, k=rng.randint(0, 4))) for _ in NAMES]
        content += ",".join(quoted(field, rng.random() < 0.3) for field in row).encode() + b"\r\n"
    path.write_bytes(content)
    rows = expected(content)
    for split_bytes, block_bytes in [(97, 8 << 20), (1_000, 100), (5_000, 1_000), (1 << 20, 331)]:
        assert read(path, split_bytes, block_bytes) == rows


BROKEN = [
    b"1,2",
    b"1,2,3,4",
    b'1,"open,3',
    b'1,2,"open',
    b'"open,2,3',
    b'1,a"b"c,3,4',
    b"1,\xff\xfe,3",
    b'1,"\xff"",",3',
]


@st.composite
def broken_files(draw: st.DrawFn) -> tuple[bytes, list[bytes], list[bytes]]:
    """Files of plain rows with broken ones among them: content, good rows, broken rows."""
    content, good, bad = HEADER, [], []
    for number in range(draw(st.integers(2, 15))):
        if draw(st.integers(0, 3)) == 0:
            row = draw(st.sampled_from(BROKEN))
            bad.append(row)
        else:
            row = b"k%d," % number + draw(st.sampled_from([b"x,y", b'"x,1",y', b'x,"y"', b'x,"a""b"', b"x,"]))
            good.append(row)
        content += row + b"\n"
    return content, good, bad


@settings(max_examples=400)
@given(
    file=broken_files(),
    split_bytes=st.sampled_from([1, 5, 17, 60, 10_000]),
    block_bytes=st.sampled_from([1, 9, 40, 8 << 20]),
)
def test_a_broken_row_stands_alone(
    path: Path, file: tuple[bytes, list[bytes], list[bytes]], split_bytes: int, block_bytes: int
) -> None:
    """Wherever the file is cut: the good rows come out as they are, the broken ones with their own bytes."""
    content, good, bad = file
    path.write_bytes(content)
    found, rejected = [], []
    for piece in pieces_of(path, split_bytes, block_bytes, 1 << 20):
        if isinstance(piece, Block):
            for index, row in enumerate(piece.batch.to_pylist()):
                payload = piece.origin.payload(index)
                assert next(csv.reader([payload.decode()])) == [row[name] or "" for name in NAMES]
                found.append(payload)
        else:
            rejected.append(piece.payload)
    assert sorted(found) == sorted(good)
    assert sorted(rejected) == sorted(bad)
