"""Lines of JSON of which the parser finds as many rows as there are lines, but not one a line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.formats.base import ReadSpec
from pipelines.formats.json import JsonReader
from pipelines.rows.origin import Block, RejectedRow

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


ROW = b'{"k": "%d", "n": %d}'
LINES: dict[str, list[bytes]] = {
    "none": [],
    "few": [ROW % (n, n) for n in range(10)],
    "many": [ROW % (n, n) for n in range(200_000)],
    "nested": [b'{"k": "%d", "more": {"a": {}}, "n": %d}' % (n, n) for n in range(60_000)],
    "a row longer than a block": [
        ROW % (n, n) if n != 70_000 else b'{"k": "%s", "n": 1}' % (b"x" * 3_000_000) for n in range(100_000)
    ],
    "lost columns": [b"{}" for _ in range(500_000)],
}


@pytest.mark.parametrize("what", list(LINES))
def test_lines_on_all_cores_are_parsed_as_on_one(what: str) -> None:
    reader = JsonReader(ReadSpec(pa.schema([("k", pa.string()), ("n", pa.int64())]), key="k"))
    raw = b"\n".join(LINES[what])
    assert reader.line_columns(memoryview(raw)).equals(reader.parse(raw, None))


@pytest.mark.parametrize("bad", [b"{} null {}", b'{"n": "text"}', b'{"k": {}}', b'{"n": 1'])
@pytest.mark.parametrize("others", [20, 200_000])
def test_lines_on_all_cores_are_refused_as_on_one(bad: bytes, others: int) -> None:
    reader = JsonReader(ReadSpec(pa.schema([("k", pa.string()), ("n", pa.int64())]), key="k"))
    lines = [ROW % (n, n) for n in range(others)]
    raw = b"\n".join([*lines[: others // 2], bad, *lines[others // 2 :]])
    with pytest.raises((pa.ArrowException, ValueError)):
        reader.parse(raw, None)
    if b"text" in bad:
        _, refused = reader.settle(reader.line_columns(memoryview(raw)))
        assert list(refused) == [others // 2]
        return
    with pytest.raises((pa.ArrowException, ValueError)):
        reader.line_columns(memoryview(raw))
