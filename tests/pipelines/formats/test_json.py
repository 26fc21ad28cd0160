"""Lines of JSON of which the parser finds as many rows as there are lines, but not one a line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.formats.base import ReadSpec
from pipelines.formats.json import JsonReader
from pipelines.rows import Block, RejectedRow

SPEC = ReadSpec(pa.schema([("k", pa.string())]), key="k")


def read(path: Path, content: bytes) -> tuple[dict[str, bytes], list[bytes]]:
    """Key -> original bytes of each good row, and the bytes of the others."""
    path.write_bytes(content)
    reader = JsonReader(SPEC)
    good: dict[str, bytes] = {}
    bad = []
    for split in reader.splits(str(path), len(content), 1 << 20):
        for piece in reader.read(split):
            if isinstance(piece, RejectedRow):
                bad.append(piece.payload)
                continue
            assert isinstance(piece, Block)
            for row, key in enumerate(piece.batch["k"].to_pylist()):
                good[key] = piece.origin.payload(row)
    return good, bad


def line(key: str) -> bytes:
    return b'{"k": "%s"}' % key.encode()


@pytest.mark.parametrize("place", [0, 1, 50, 99])
def test_two_objects_on_a_line_and_one_on_two_do_not_cancel_out(tmp_path: Path, place: int) -> None:
    lines = [line(f"r{n}") for n in range(100)]
    wrong = [line("a") + line("b"), b'{"k":', b'"c"}']
    lines[place:place] = wrong
    good, bad = read(tmp_path / "rows.json", b"\n".join(lines) + b"\n")
    assert good == {f"r{n}": line(f"r{n}") for n in range(100)}
    assert sorted(bad) == sorted(wrong)


def test_white_space_around_rows_is_none_of_them(tmp_path: Path) -> None:
    lines = [b"  " + line("a") + b"\t", b"", line("b") + b"\r", line("c"), b""]
    good, bad = read(tmp_path / "rows.json", b"\n".join(lines))
    assert set(good) == {"a", "b", "c"}
    assert bad == []
