"""Compressed files as gunzip, bunzip2 and unzstd read them: members, padding, garbage, ends that are missing."""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats import ReadSpec, reader_class
from pipelines.formats.unpacking import Unpacked
from pipelines.rows.origin import Block, RejectedRow

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": zstandard.ZstdCompressor().compress,
}
NAMES = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}
KEYS = [f"k{n}" for n in range(3_000)]
ROWS = {
    "csv": b"id\n" + b"".join(f"{key}\n".encode() for key in KEYS),
    "json": b"".join(b'{"id": "%s"}\n' % key.encode() for key in KEYS),
}


def read(path: Path, format: str, content: bytes) -> tuple[list[str], list[RejectedRow]]:
    path.write_bytes(content)
    reader = reader_class(format)(ReadSpec(pa.schema([("id", pa.string())]), {}, "id"))
    assert reader_class(format).schema(str(path), {}).names == ["id"]
    good, bad = [], []
    for split in reader.splits(str(path), len(content), 1 << 20):
        for piece in reader.read(split):
            if isinstance(piece, Block):
                good += piece.batch["id"].to_pylist()
            else:
                bad.append(piece)
    return good, bad


@pytest.mark.parametrize("format", list(ROWS))
@pytest.mark.parametrize("ending", list(PACK))
@pytest.mark.parametrize("what", ["one", "padded", "members", "padded members", "empty members", "no line end"])
def test_every_row_of_a_whole_file(format: str, ending: str, what: str, tmp_path: Path) -> None:
    pack, rows = PACK[ending], ROWS[format]
    cut = len(rows) // 2
    content = {
        "one": pack(rows),
        "padded": pack(rows) + bytes(3_000_000),
        "members": pack(rows[:cut]) + pack(rows[cut:]),
        "padded members": pack(rows[:cut]) + bytes(512) + pack(rows[cut:]) + bytes(1),
        "empty members": pack(b"") + pack(rows) + pack(b"") * 500,
        "no line end": pack(rows[:-1]) + bytes(10),
    }[what]
    assert read(tmp_path / f"rows.{format}.{ending}", format, content) == (KEYS, [])


@pytest.mark.parametrize("line_end", [True, False])
@pytest.mark.parametrize("format", list(ROWS))
@pytest.mark.parametrize("ending", list(PACK))
def test_garbage_behind_the_end_is_one_dead_letter(format: str, ending: str, line_end: bool, tmp_path: Path) -> None:
    rows = ROWS[format] if line_end else ROWS[format][:-1]
    good, bad = read(tmp_path / f"rows.{format}.{ending}", format, PACK[ending](rows) + b"\0\0not packed")
    assert good == KEYS
    assert [(piece.payload, piece.truncated) for piece in bad] == [(b"not packed", True)]
    assert f"what follows the end of the {NAMES[ending]} data is none of it" in bad[0].message


@pytest.mark.parametrize("ending", list(PACK))
def test_rows_before_a_missing_end_are_read(ending: str, tmp_path: Path) -> None:
    """Most of the rows come from a member that is whole, the rest from one that is cut."""
    rows = ROWS["csv"]
    content = PACK[ending](rows) + PACK[ending](b"more\n" * 10)[:-9]
    good, bad = read(tmp_path / f"rows.csv.{ending}", "csv", content)
    assert good[: len(KEYS)] == KEYS
    assert set(good[len(KEYS) :]) <= {"more"}
    assert ["ends early" in piece.message for piece in bad] == [True]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(PACK)),
    st.lists(st.tuples(st.binary(max_size=3_000), st.integers(0, 9)), max_size=5),
    st.integers(1, 5_000),
)
def test_any_members_with_any_padding(ending: str, members: list[tuple[bytes, int]], step: int) -> None:
    content = b"".join(PACK[ending](data) + bytes(padding) for data, padding in members)
    unpacked = Unpacked(io.BytesIO(content), NAMES[ending])
    found = b"".join(iter(lambda: unpacked.read(step), b""))
    assert (found, unpacked.failure) == (b"".join(data for data, _ in members), "")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(PACK)), st.binary(max_size=3_000), st.data())
def test_a_changed_byte_gives_no_more_than_what_was_packed(ending: str, data: bytes, choose: st.DataObject) -> None:
    content = bytearray(PACK[ending](data))
    content[choose.draw(st.integers(0, len(content) - 1))] ^= choose.draw(st.integers(1, 255))
    unpacked = Unpacked(io.BytesIO(bytes(content)), NAMES[ending])
    found = b"".join(iter(lambda: unpacked.read(1_000), b""))
    assert len(found) <= 1 << 20
    # A changed header may say nothing (a time, a name); without a failure the data is what it was.
    if ending != "zst" and not unpacked.failure:
        assert found == data
