"""Tells rows apart in text: by line ends, and by the quotes that may hold some."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.formats.base import MAX_ROW_BYTES
from pipelines.formats.quoting import (
    NEWLINE,
    RETURN,
    FieldWalker,
    RowScanner,
    has_lone_return,
    line_ends,
    quoting_fits,
)
from pipelines.rows.origin import Positions


@dataclass(frozen=True)
class Spans:
    """Describes where the rows of a block begin and end, in bytes: int64 [rows] each, line ends excluded.

    `unclosed` are the rows in which a quote is never closed, which a lenient parser would take for whole.
    """

    starts: Positions
    ends: Positions
    unclosed: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True)
class Dialect:
    """Tells rows apart in text.

    Attributes:
      quote: the byte that lets a field span lines, or None if every line is a row.
      delimiter: the byte between fields (matters only with `quote`).
      keeps_empty: whether an empty line is a row.
    """

    quote: bytes | None = None
    delimiter: bytes = b","
    keeps_empty: bool = False

    def row_ends(self, data: bytes, *, final: bool) -> Positions:
        """Offsets just behind the line end of each row that is complete in `data`, int64.

        `data` begins at a row. With `final`, nothing follows it: a last row needs no line end, and a quote
        that is still open was a mistake, so its line is a row on its own.
        """
        if self.quote is not None and self.quote in data:
            ends = self._quoted_row_ends(data, final)
        else:
            ends = line_ends(data, final)
        if final and data and (not len(ends) or ends[-1] != len(data)):
            ends = np.append(ends, len(data))
        return np.asarray(ends, np.int64)

    def last_row_end(self, data: bytes) -> int:
        """Finds the offset just behind the line end of the last row that is complete in `data`; 0 if there is none."""
        if (self.quote is not None and self.quote in data) or b"\r" in data:
            ends = self.row_ends(data, final=False)
            return int(ends[-1]) if len(ends) else 0
        return data.rfind(b"\n") + 1

    def _quoted_row_ends(self, data: bytes, final: bool) -> Positions:
        buffer = np.frombuffer(data, np.uint8)
        assert self.quote is not None
        quotes = np.flatnonzero(buffer == self.quote[0])
        if not has_lone_return(data) and not (final and len(quotes) & 1):
            newlines = np.flatnonzero(buffer == NEWLINE)
            outside = (np.searchsorted(quotes, newlines) & 1) == 0
            rows_end_in_sight = bool(outside.any()) or len(data) <= MAX_ROW_BYTES
            if rows_end_in_sight and quoting_fits(buffer, quotes, self.quote, self.delimiter, inside=False):
                return np.asarray(newlines[outside] + 1, np.int64)
            del newlines, outside
        return RowScanner(data, quotes, self.quote, self.delimiter, final).row_ends(MAX_ROW_BYTES)

    def spans(self, data: bytes) -> Spans:
        """Returns the rows of a whole block; empty lines are none, unless they are kept."""
        ends = self.row_ends(data, final=True)
        starts = np.zeros_like(ends)
        starts[1:] = ends[:-1]
        buffer = np.frombuffer(data, np.uint8)
        for terminator in (NEWLINE, RETURN):
            ends -= (buffer[ends - 1] == terminator) & (ends > starts)
        if not self.keeps_empty:
            full = ends > starts
            starts, ends = starts[full], ends[full]
        return Spans(starts, ends, self._unclosed(data, starts, ends))

    def _unclosed(self, data: bytes, starts: Positions, ends: Positions) -> frozenset[int]:
        if self.quote is None or self.quote not in data:
            return frozenset()
        buffer = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(buffer == self.quote[0])
        if len(quotes) % 2 == 0 and quoting_fits(buffer, quotes, self.quote, self.delimiter, inside=False):
            return frozenset()
        fields = FieldWalker(self.quote, self.delimiter, lenient=True)
        quoted = np.unique(np.searchsorted(starts, quotes, side="right") - 1).tolist()
        return frozenset(row for row in quoted if fields.walk(data, int(starts[row]), int(ends[row])) is None)
