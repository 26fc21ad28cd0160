"""Runs commands whose rows are accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import ledger
from tests.support.commands import Command, Result
from tests.support.ledger import KEY, Row, books_of, write_config

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


def assert_partly_read(folder: Path, good: list[Row], cut: list[Row], broken: Path, *, some: bool | None) -> None:
    """All good rows are there; of the broken file a beginning, each row once, and dead letters name the file."""
    books = books_of(folder)
    readable = [row for row in cut if row[KEY] in books.keys]
    assert readable == cut[: len(readable)]
    assert len(readable) < len(cut)
    assert some is None or bool(readable) == some
    assert books.keys == Counter(row[KEY] for row in good + readable)
    ledger.assert_predictions(books, good + readable)
    assert books.dead_letters
    assert all(dead_letter["source"].startswith(f"{broken}:") for dead_letter in books.dead_letters)
