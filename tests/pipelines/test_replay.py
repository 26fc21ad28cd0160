"""Dead letters run again: what is mended is appended once, what is not stays and is counted."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support import ledger
from tests.support.commands import Command, Result
from tests.support.ledger import (
    DEFAULTS,
    FORMATS_IN,
    KEY,
    Row,
    assert_balanced,
    births,
    books_of,
    shards,
    write_config,
    write_rows,
)

FIX = '--set=source.defaults={"mother_age": 30, "is_male": "Unknown", ' + json.dumps(DEFAULTS)[1:]


def mended(row: Row) -> Row:
    """A row as FIX makes it."""
    return {
        **row,
        "mother_age": 30.0 if row["mother_age"] is None else row["mother_age"],
        "is_male": "Unknown" if row["is_male"] is None else row["is_male"],
    }


def some_bad(count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Good rows, and rows that FIX mends."""
    rows = births(count, seed)
    bad = [{**row, ("mother_age", "is_male")[n % 2]: None} for n, row in enumerate(rows[5::17])]
    return [row for n, row in enumerate(rows) if n % 17 != 5], bad


def run(command: Command, config: str, module: str = "batch", *arguments: str) -> Result:
    result = command(module, "--config", config, "--json", *arguments)
    assert result.code == 0, result
    return result


def replays(folder: Path) -> list[str]:
    return [path.name for path in sorted((folder / "out").glob("p-replay-*"))]


@pytest.mark.parametrize("format", FORMATS_IN)
def test_what_is_mended_is_appended(command: Command, tmp_path: Path, format: str) -> None:
    good, bad = some_bad(300, 1)
    file = write_rows(tmp_path / "in", format, good[:100] + bad + good[100:])
    config = write_config(tmp_path, format, str(file))
    run(command, config)
    assert_balanced(books_of(tmp_path), good, {row[KEY]: None for row in bad})
    before = [path.read_bytes() for path in shards(tmp_path / "out" / "p")]
    summary = run(command, config, "replay", FIX).summary
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (len(bad), len(bad), 0)
    assert_balanced(books_of(tmp_path), good + [mended(row) for row in bad], {})
    assert [path.read_bytes() for path in shards(tmp_path / "out" / "p")] == before
    assert replays(tmp_path)
    assert shards(tmp_path / "out" / "dead") == []
    again = command("replay", "--config", config, "--json", FIX)
    assert (again.code, again.out) == (0, "{}\n")
    assert "nothing to replay" in again.err


@pytest.mark.parametrize("format", FORMATS_IN)
def test_the_source_may_be_gone(command: Command, tmp_path: Path, format: str) -> None:
    """A dead letter holds all that is needed."""
    good, bad = some_bad(100, 2)
    file = write_rows(tmp_path / "in", format, good + bad)
    config = write_config(tmp_path, format, str(file))
    run(command, config)
    file.unlink()
    run(command, config, "replay", FIX)
    assert_balanced(books_of(tmp_path), good + [mended(row) for row in bad], {})


def test_what_fails_again_is_counted_and_kept(command: Command, tmp_path: Path) -> None:
    good, bad = some_bad(100, 3)
    odd = b"no,such,row"
    content = ledger.lines([*map(ledger.csv_row, good + bad), odd], ledger.HEADER)
    (tmp_path / "in.csv").write_bytes(content)
    config = write_config(tmp_path, "csv", str(tmp_path / "in.csv"))
    run(command, config)
    first = books_of(tmp_path).dead_letters
    for attempt in (2, 3, 4):
        summary = run(command, config, "replay").summary
        assert summary["rows_written"] == 0
        assert summary["rows_dead_lettered"] == len(bad) + 1
        dead_letters = books_of(tmp_path).dead_letters
        assert {dead_letter["attempts"] for dead_letter in dead_letters} == {attempt}
        strip = [{**dead_letter, "attempts": 0, "message": ""} for dead_letter in (*first, *dead_letters)]
        assert Counter(map(str, strip[: len(first)])) == Counter(map(str, strip[len(first) :]))
        assert replays(tmp_path) == []
    run(command, config, "replay", FIX)
    key = next(dead_letter["key"] for dead_letter in first if dead_letter["payload"] == odd)
    assert_balanced(books_of(tmp_path), good + [mended(row) for row in bad], {key: odd})
    assert [dead_letter["attempts"] for dead_letter in books_of(tmp_path).dead_letters] == [5]


def test_mended_in_two_steps(command: Command, tmp_path: Path) -> None:
    """Each replay appends shards of its own, and touches none of the others'."""
    good, bad = some_bad(200, 4)
    config = write_config(tmp_path, "csv", str(write_rows(tmp_path / "in.csv", "csv", good + bad)))
    run(command, config)
    half = '--set=source.defaults={"mother_age": 30, ' + json.dumps(DEFAULTS)[1:]
    run(command, config, "replay", half)
    first = replays(tmp_path)
    left = {row[KEY]: ledger.csv_row(row) for row in bad if row["is_male"] is None}
    fixed = [mended(row) for row in bad if row["is_male"] is not None]
    assert_balanced(books_of(tmp_path), good + fixed, left)
    run(command, config, "replay", FIX)
    assert set(first) < set(replays(tmp_path))
    assert_balanced(books_of(tmp_path), good + [mended(row) for row in bad], {})


def test_an_interrupted_replay_can_be_repeated(command: Command, tmp_path: Path) -> None:
    """Stopped after its output was published and before its dead letters were: the same shards come again."""
    good, bad = some_bad(200, 5)
    config = write_config(tmp_path, "csv", str(write_rows(tmp_path / "in.csv", "csv", good + bad)))
    run(command, config)
    saved = tmp_path / "saved"
    shutil.copytree(tmp_path / "out", saved)
    run(command, config, "replay", FIX)
    names = replays(tmp_path)
    for path in shards(saved / "dead"):
        shutil.copy(path, tmp_path / "out")
    run(command, config, "replay", FIX)
    assert replays(tmp_path) == names
    assert_balanced(books_of(tmp_path), good + [mended(row) for row in bad], {})


def test_a_rerun_takes_replays_back(command: Command, tmp_path: Path) -> None:
    good, bad = some_bad(100, 6)
    config = write_config(tmp_path, "csv", str(write_rows(tmp_path / "in.csv", "csv", good + bad)))
    for _ in range(2):
        run(command, config)
        assert replays(tmp_path) == []
        assert_balanced(books_of(tmp_path), good, {row[KEY]: None for row in bad})
        run(command, config, "replay", FIX)
        assert_balanced(books_of(tmp_path), good + [mended(row) for row in bad], {})


def test_a_mended_model(command: Command, tmp_path: Path, strict_model: str) -> None:
    """Rows that one model fails on are predicted by the next."""
    rows = births(200, 7)
    for row in rows[::20]:
        row["mother_age"] = -1.0
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    changes: dict[str, Any] = {"model": {"path": strict_model}, "source": {"defaults": {}}}
    run(command, write_config(tmp_path, "csv", str(file), **changes))
    assert len(books_of(tmp_path).dead_letters) == 10
    config = write_config(tmp_path, "csv", str(file))
    run(command, config, "replay")
    books = books_of(tmp_path)
    assert books.keys == Counter(row[KEY] for row in rows)
    ledger.assert_predictions(books, rows[::20])


def test_keys_of_rows_without_a_key_column_stay(command: Command, tmp_path: Path) -> None:
    good, bad = some_bad(100, 8)
    file = write_rows(tmp_path / "in.csv", "csv", good + bad)
    config = write_config(tmp_path, "csv", str(file), source={"key": None})
    run(command, config)
    dead_letters = books_of(tmp_path).letter_keys
    run(command, config, "replay", FIX)
    books = books_of(tmp_path)
    assert len(books.keys) == len(good + bad)
    assert dead_letters.keys() <= books.keys.keys()
    offset = len(ledger.lines(map(ledger.csv_row, good), ledger.HEADER))
    assert books.predictions[f"{file}:{offset}"] == ledger.direct([mended(bad[0])])[0]


@pytest.mark.parametrize("format", ["parquet", "orc", "avro", "tfrecord"])
def test_what_cannot_be_replayed_is_kept(command: Command, tmp_path: Path, format: str) -> None:
    """A file cut short: its dead letters hold what there is, and no replay loses them."""
    rows = births(1_500, 9)
    file = write_rows(tmp_path / "in-b", format, rows)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    write_rows(tmp_path / "in-a", format, births(20, 10, "other"))
    config = write_config(tmp_path, format, str(tmp_path / "in-*"))
    run(command, config)
    first = books_of(tmp_path)
    assert first.dead_letters
    for _ in range(2):
        run(command, config, "replay")
        books = books_of(tmp_path)
        assert books.keys == first.keys
        assert books.letter_keys == first.letter_keys
        assert sorted(map(_essence, books.dead_letters)) == sorted(map(_essence, first.dead_letters))


def _essence(dead_letter: Row) -> str:
    return str((dead_letter["key"], dead_letter["payload"], dead_letter["source"], dead_letter["format"]))


def test_dead_letters_that_are_none(command: Command, tmp_path: Path) -> None:
    """A file under the prefix that holds something else is a mistake to be named, not to be deleted."""
    file = write_rows(tmp_path / "in.csv", "csv", births(10, 11))
    config = write_config(tmp_path, "csv", str(file))
    (tmp_path / "out").mkdir()
    foreign = tmp_path / "out" / "dead-00000-of-00001.jsonl"
    foreign.write_text('{"not": "a dead letter"}\n')
    result = command("replay", "--config", config)
    assert result.code in (1, 2)
    assert len(result.errors) == 1, result
    assert "dead letter" in result.errors[0]
    assert foreign.read_text() == '{"not": "a dead letter"}\n'
