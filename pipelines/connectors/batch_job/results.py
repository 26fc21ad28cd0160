"""Finds and reads the files that a service writes at the end of a job: results, and errors beside them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inference.endpoint.protocols.responses import one_line, said_in
from pipelines import storage
from pipelines.formats.text_blocks import line_cuts
from pipelines.storage import FileInfo

_RESULTS = re.compile(r"prediction\.results-\d+-of-\d+|predictions_\d+\.jsonl")
_OF_HOW_MANY = re.compile(r"(.*-)(\d+)-of-(\d+)")
_ERRORS = re.compile(r"prediction\.errors_stats-\d+-of-\d+|errors_\d+\.jsonl")
PIECE_BYTES = 32 << 20
"""Bytes of a result file that are sorted at a time."""
_BLOCK_BYTES = 4 << 20
_MOST_LINE_BYTES = 256 << 20
_MOST_ERROR_BYTES = 16 << 20
_MOST_KINDS = 1_000
_MOST_FILES = 100_000
_SHOWN = 3


@dataclass(frozen=True)
class ResultPiece:
    """Describes a piece of a result file that one worker reads; it begins and ends at a line.

    Attributes:
      path: of the file.
      start: where it begins, in bytes.
      end: where it ends.
    """

    path: str
    start: int
    end: int


@dataclass(frozen=True)
class ResultFiles:
    """Lists what a job has written.

    Attributes:
      results: files of results.
      errors: files that say what went wrong.
    """

    results: tuple[FileInfo, ...]
    errors: tuple[FileInfo, ...]


class LineTooLongError(ValueError):
    """Raised when a line of a result file is longer than any result can be."""


def find(folder: str) -> ResultFiles:
    """Finds the files of a job, under either of the names that services give them."""
    found = storage.match(folder.rstrip("/") + "/*")
    named = [(file, file.path.rpartition("/")[2]) for file in found]
    return ResultFiles(
        tuple(file for file, name in named if _RESULTS.fullmatch(name)),
        tuple(file for file, name in named if _ERRORS.fullmatch(name)),
    )


def gone(files: tuple[FileInfo, ...]) -> list[str]:
    """Lists the files that are not there, though the names of others say that they were written."""
    named = filter(None, (_OF_HOW_MANY.fullmatch(file.path) for file in files))
    there: dict[tuple[str, int, str], set[int]] = {}
    for begin, number, count in (each.groups() for each in named):
        there.setdefault((begin, len(number), count), set()).add(int(number))
    return [
        f"{begin}{number:0{digits}}-of-{count}"
        for (begin, digits, count), numbers in there.items()
        if max(numbers) < int(count) <= _MOST_FILES
        for number in sorted({*range(int(count))} - numbers)
    ]


def pieces(files: tuple[FileInfo, ...]) -> tuple[ResultPiece, ...]:
    """Cuts files into pieces."""
    made = []
    for file in files:
        cuts = line_cuts(file.path, file.size, PIECE_BYTES)
        made += [ResultPiece(file.path, low, high) for low, high in zip(cuts, cuts[1:], strict=False)]
    return tuple(made)


def line_blocks(piece: ResultPiece) -> Iterator[bytes]:
    """Yields whole lines, some at a time.

    Raises:
      LineTooLongError: a line does not end.
    """
    carry = b""
    with storage.open_input(piece.path, piece.start) as file:
        at = piece.start
        while at < piece.end:
            data = storage.read_fully(file, min(_BLOCK_BYTES, piece.end - at))
            if not data:
                break
            at += len(data)
            cut = data.rfind(b"\n") + 1
            if cut:
                yield carry + data[:cut]
                carry = data[cut:]
            else:
                carry += data
            if len(carry) > _MOST_LINE_BYTES:
                raise LineTooLongError(f"{piece.path}: a line of more than {_MOST_LINE_BYTES >> 20} MiB is no result")
    if carry:
        yield carry


def what_went_wrong(files: tuple[FileInfo, ...]) -> list[str]:
    """Says what the error files hold, the most frequent first, a few of them.

    They are lines of JSON, objects with an error or lists of a message and a count, or Python's tuples of these.
    """
    kinds: Counter[str] = Counter()
    left = _MOST_ERROR_BYTES
    for file in files:
        content = storage.read_range(file.path, 0, min(file.size, left))
        left -= len(content)
        for line in content.splitlines():
            if line.strip() and len(kinds) < _MOST_KINDS:
                message, count = _message(line)
                kinds[message] += count
        if left <= 0:
            break
    return [f"{message} ({count:,})" for message, count in kinds.most_common(_SHOWN)]


def _message(line: bytes) -> tuple[str, int]:
    text = line.decode("utf-8", "replace").strip()
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        tuple_of_python = re.fullmatch(r"""\(\s*(['"])(.*)\1\s*,\s*(\d{1,18})\s*\)""", text)
        return (one_line(tuple_of_python[2]), int(tuple_of_python[3])) if tuple_of_python else (one_line(text, 200), 1)
    if isinstance(found, list) and len(found) == 2 and isinstance(found[0], str) and type(found[1]) is int:
        return one_line(found[0]), max(1, found[1])
    if isinstance(found, dict) and type(found.get("count")) is int:
        return said_in(found) or one_line(text, 200), max(1, found["count"])
    return said_in(found) or one_line(text, 200), 1
