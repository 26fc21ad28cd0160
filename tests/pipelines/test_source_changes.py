"""A source that changes while it is read fails the run, and nothing is published; appended rows are left alone."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import storage
from pipelines.connectors.files.file_version import FileVersion, SourceChangedError, current, require_unchanged
from pipelines.formats import reader_class
from pipelines.formats.base import Split
from tests.support import ledger
from tests.support.commands import Command, Result
from tests.support.ledger import FORMATS_IN, assert_balanced, births, books_of, csv_row, lines, write_config, write_rows

Change = Callable[[Path], None]
ROWS = 400


def shorter(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def removed(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    """Another file of the same size, moved into its place."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[::-1])
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    other.rename(path)


def written_over(path: Path) -> None:
    """Other content, and more of it, in the same file."""
    path.write_bytes(b"x" * (path.stat().st_size + 100))


def appended(data: bytes) -> Change:
    def change(path: Path) -> None:
        with path.open("ab") as file:
            file.write(data)

    return change


@pytest.fixture
def once_planned(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Change], None]:
    """Makes a change happen after a file was cut into pieces, before they are read."""

    def arrange(format: str, change: Change) -> None:
        reader: Any = reader_class(format)
        splits = reader.splits

        def splits_then_change(self: Any, file: str, size: int, split_bytes: int) -> list[Split]:
            found: list[Split] = splits(self, file, size, split_bytes)
            change(Path(file))
            return found

        monkeypatch.setattr(reader, "splits", splits_then_change)

    return arrange


def batch(command: Command, folder: Path, format: str, file: Path) -> Result:
    return command("batch", "--config", write_config(folder, format, str(file)), "--json")


@pytest.mark.parametrize(
    ("change", "format"),
    [
        *((shorter, format) for format in FORMATS_IN),
        *((change, format) for change in (removed, replaced, written_over) for format in ("csv", "parquet")),
    ],
)
def test_a_file_that_changes_fails_the_run(
    command: Command,
    tmp_path: Path,
    once_planned: Callable[[str, Change], None],
    small_pieces: Callable[[int, int], None],
    change: Change,
    format: str,
) -> None:
    file = write_rows(tmp_path / "in", format, births(ROWS, 1))
    once_planned(format, change)
    result = batch(command, tmp_path, format, file)
    assert result.code == 1, result
    (error,) = result.errors
    assert f"{file} changed while" in error
    assert "nothing was published" in error
    assert not (tmp_path / "out").exists() or not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_compressed_or_plain_text_that_becomes_shorter(
    command: Command, tmp_path: Path, once_planned: Callable[[str, Change], None], suffix: str
) -> None:
    file = write_rows(tmp_path / f"in.json{suffix}", "json", births(ROWS, 1))
    once_planned("json", shorter)
    assert batch(command, tmp_path, "json", file).code == 1


@pytest.mark.parametrize("format", ["csv", "json", "tfrecord", "avro"])
def test_rows_that_are_appended_are_left_to_the_next_run(
    command: Command, tmp_path: Path, once_planned: Callable[[str, Change], None], format: str
) -> None:
    rows = births(ROWS, 1)
    file = write_rows(tmp_path / "in", format, rows)
    more = file.read_bytes()
    once_planned(format, appended(more[: len(more) // 2]))
    result = batch(command, tmp_path, format, file)
    assert result.code == 0, result
    assert_balanced(books_of(tmp_path), rows, {})


def test_what_is_appended_to_a_compressed_file_is_not_read(
    command: Command, tmp_path: Path, once_planned: Callable[[str, Change], None]
) -> None:
    rows = births(ROWS, 1)
    file = write_rows(tmp_path / "in.csv.gz", "csv", rows)
    once_planned("csv", appended(gzip.compress(b"no,row,of,the,file\n")[:-9]))
    result = batch(command, tmp_path, "csv", file)
    assert result.code == 0, result
    assert_balanced(books_of(tmp_path), rows, {})


@pytest.mark.parametrize("format", ["parquet", "orc"])
def test_a_table_that_grows_fails_the_run(
    command: Command, tmp_path: Path, once_planned: Callable[[str, Change], None], format: str
) -> None:
    file = write_rows(tmp_path / "in", format, births(ROWS, 1))
    once_planned(format, appended(b"more"))
    result = batch(command, tmp_path, format, file)
    assert result.code == 1
    assert "has grown" in result.errors[0]


def test_a_row_that_was_not_complete_is_never_read_half(
    command: Command, tmp_path: Path, once_planned: Callable[[str, Change], None]
) -> None:
    rows = births(20, 1)
    content = lines([csv_row(row) for row in rows], ",".join(ledger.COLUMNS).encode())
    file = tmp_path / "in.csv"
    file.write_bytes(content.rstrip(b"\n"))
    once_planned("csv", appended(b"9 goes on\n"))
    result = batch(command, tmp_path, "csv", file)
    assert result.code == 1
    assert "amid a row" in result.errors[0]


def test_a_file_that_changes_between_plan_and_run(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n1\n2\n")
    (planned,) = storage.match(str(path))
    assert current(planned).info == planned
    appended(b"3\n")(path)
    grown = current(planned)
    assert grown.info.size == 8
    shorter(path)
    for info in (planned, grown.info):
        with pytest.raises(SourceChangedError, match=r"a\.csv changed after the run was planned"):
            current(info)
    removed(path)
    with pytest.raises(SourceChangedError, match="was removed"):
        current(planned)


def test_a_local_file_that_has_grown_is_held_against_what_was_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n" + b"1\n" * 5000)
    version = FileVersion.of(storage.describe(str(path)))
    appended(b"2\n")(path)
    require_unchanged(version, "bytes 0 to 1", lambda: True)
    written_over(path)
    with pytest.raises(SourceChangedError, match="written over"):
        require_unchanged(version, "bytes 0 to 1", lambda: True)


def test_dead_letters_that_change_while_they_are_run_again_fail_the_replay(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = births(50, 4)
    bad = [{**row, "mother_age": None} for row in rows[:5]]
    config = write_config(tmp_path, "csv", str(write_rows(tmp_path / "in.csv", "csv", bad + rows[5:])))
    assert command("batch", "--config", config).code == 0
    dead_letters = {path: path.read_bytes() for path in ledger.shards(tmp_path / "out" / "dead")}
    from pipelines.connectors.files import replay_source

    identity = replay_source.current

    def looked_at_then_shortened(shard: storage.FileInfo) -> FileVersion:
        version = identity(shard)
        shorter(Path(shard.path))
        return version

    monkeypatch.setattr(replay_source, "current", looked_at_then_shortened)
    result = command("replay", "--config", config)
    assert result.code == 1, result
    assert not list((tmp_path / "out").glob("p-replay-*"))
    assert dead_letters
