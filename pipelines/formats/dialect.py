"""How rows are told apart in text: by line ends, and by the quotes that may hold some."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pipelines.formats.base import MAX_ROW_BYTES
from pipelines.rows import Positions

_NEWLINE = 10
_RETURN = 13


@dataclass(frozen=True)
class Spans:
    """Where the rows of a block begin and end, in bytes: int64 [rows] each, line ends excluded.

    `unclosed` are the rows in which a quote is never closed, which a lenient parser would take for whole.
    """

    starts: Positions
    ends: Positions
    unclosed: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True)
class Dialect:
    """How rows are told apart in text.

    Attributes:
      quote: the byte that lets a field span lines, or None if every line is a row.
      delimiter: the byte between fields (matters only with `quote`).
    """

    quote: bytes | None = None
    delimiter: bytes = b","

    def row_ends(self, data: bytes, *, final: bool) -> Positions:
        """Offsets just behind the line end of each row that is complete in `data`, int64.

        `data` begins at a row. With `final`, nothing follows it: a last row needs no line end, and a quote
        that is still open was a mistake, so its line is a row on its own.
        """
        if self.quote is not None and self.quote in data:
            ends = self._quoted_row_ends(data, final)
        elif b"\r" in data and _has_lone_return(data):
            ends = self._scan(data, final)
        else:
            ends = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE).astype(np.int64) + 1
        if final and data and (not len(ends) or ends[-1] != len(data)):
            ends = np.append(ends, len(data))
        return np.asarray(ends, np.int64)

    def last_row_end(self, data: bytes) -> int:
        """Offset just behind the line end of the last row that is complete in `data`; 0 if there is none."""
        if (self.quote is not None and self.quote in data) or b"\r" in data:
            ends = self.row_ends(data, final=False)
            return int(ends[-1]) if len(ends) else 0
        return data.rfind(b"\n") + 1

    def _quoted_row_ends(self, data: bytes, final: bool) -> Positions:
        buffer = np.frombuffer(data, np.uint8)
        assert self.quote is not None
        quotes = np.flatnonzero(buffer == self.quote[0])
        newlines = np.flatnonzero(buffer == _NEWLINE)
        opened = np.searchsorted(quotes, newlines) & 1
        rows_end_in_sight = bool(np.any(opened == 0)) or len(data) <= MAX_ROW_BYTES
        closed = not (final and len(quotes) & 1)
        well_formed = quoting_fits(buffer, quotes, self, inside=False)
        if well_formed and closed and rows_end_in_sight and not _has_lone_return(data):
            return np.asarray(newlines[opened == 0] + 1, np.int64)
        return self._scan(data, final)

    def _scan(self, data: bytes, final: bool) -> Positions:
        """Row by row, for text whose quotes do not add up: a row that is no proper row ends with its line."""
        row = _row_pattern(self)
        line_end = re.compile(rb"\r\n|\n|\r")
        ends = []
        at, size = 0, len(data)
        counted, quotes = 0, 0 if self.quote is None else data.count(self.quote)
        while at < size:
            match = row.match(data, at)
            if match is None:
                if self.quote is not None:
                    quotes -= data.count(self.quote, counted, at)
                    counted = at
                # An open quote may still be closed by what follows, as long as a row may be that long.
                if not final and size - at <= MAX_ROW_BYTES and quotes % 2:
                    break
                found = line_end.search(data, at)
            else:
                found = line_end.match(data, match.end())
            if found is None or (not final and found.end() == size and data[found.start()] == _RETURN):
                break
            at = found.end()
            ends.append(at)
        return np.array(ends, np.int64)

    def spans(self, data: bytes) -> Spans:
        """The rows of a whole block; empty lines are no rows."""
        ends = self.row_ends(data, final=True)
        starts = np.concatenate([np.zeros(1, np.int64), ends])[: len(ends)]
        buffer = np.frombuffer(data, np.uint8)
        for terminator in (_NEWLINE, _RETURN):
            last = buffer[np.maximum(ends - 1, 0)]
            ends = np.where((last == terminator) & (ends > starts), ends - 1, ends)
        full = ends > starts
        starts, ends = starts[full], ends[full]
        return Spans(starts, ends, self._unclosed(data, starts, ends))

    def _unclosed(self, data: bytes, starts: Positions, ends: Positions) -> frozenset[int]:
        if self.quote is None or self.quote not in data:
            return frozenset()
        buffer = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(buffer == self.quote[0])
        if len(quotes) % 2 == 0 and quoting_fits(buffer, quotes, self, inside=False):
            return frozenset()
        lenient = _lenient_row_pattern(self)
        quoted = np.unique(np.searchsorted(starts, quotes, side="right") - 1).tolist()
        return frozenset(row for row in quoted if not lenient.fullmatch(data, starts[row], ends[row]))


def _row_pattern(dialect: Dialect) -> re.Pattern[bytes]:
    if dialect.quote is None:
        return re.compile(rb"[^\r\n]*")
    quote, delimiter = re.escape(dialect.quote), re.escape(dialect.delimiter)
    field = rb"(?:%q[^%q]*(?:%q%q[^%q]*)*%q|[^%q%d\r\n][^%d\r\n]*|)"
    row = field + rb"(?:%d" + field + rb")*(?=[\r\n]|\Z)"
    return re.compile(row.replace(b"%q", quote).replace(b"%d", delimiter))


def _lenient_row_pattern(dialect: Dialect) -> re.Pattern[bytes]:
    """A row in which every quoted field ends, even if something stands behind its closing quote."""
    quote, delimiter = re.escape(cast(bytes, dialect.quote)), re.escape(dialect.delimiter)
    field = rb"(?:%q[^%q]*(?:%q%q[^%q]*)*%q[^%d]*|[^%q%d][^%d]*|)"
    row = field + rb"(?:%d" + field + rb")*"
    return re.compile(row.replace(b"%q", quote).replace(b"%d", delimiter))


def _has_lone_return(data: bytes) -> bool:
    return data.count(b"\r") != data.count(b"\r\n") + data.endswith(b"\r")


def quoting_fits(buffer: npt.NDArray[np.uint8], quotes: Any, dialect: Dialect, *, inside: bool) -> bool:
    """Whether every quote in `buffer` stands where a quote may, if the buffer begins `inside` a quoted field.

    An opening quote follows a delimiter or a line end, a closing one precedes one; a doubled quote is a
    closing and an opening one side by side. What lies beyond the buffer's edges is not held against it.
    """
    if not len(quotes):
        return True
    neighbours = np.zeros(256, bool)
    assert dialect.quote is not None
    neighbours[[_NEWLINE, _RETURN, dialect.delimiter[0], dialect.quote[0]]] = True
    opens = (np.arange(len(quotes)) + inside) % 2 == 0
    before = quotes[opens & (quotes > 0)] - 1
    after = quotes[~opens & (quotes < len(buffer) - 1)] + 1
    return bool(neighbours[buffer[before]].all() and neighbours[buffer[after]].all())
