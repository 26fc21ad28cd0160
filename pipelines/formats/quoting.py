"""Quotes in text: where they may stand, and which rows there are where they do not add up.

Everything here takes time and memory in proportion to the text, whatever it holds: patterns that repeat a group are
limited and put together by loops, as `re` keeps what it needs to go back for each repetition.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

NEWLINE = 10
RETURN = 13

Positions = npt.NDArray[np.int64]

_COUNTED_BYTES = 1 << 18

_GOOD_ROWS = 32
"""Rows without a fault after which rows are told apart many at a time again."""

_WASTE = 8
"""Times the length of a text that its rows may be tried in vain before each line is taken for a row."""


def has_lone_return(data: bytes) -> bool:
    """Tells whether a carriage return stands without a newline behind it, except at the end of the data."""
    return data.count(b"\r") != data.count(b"\r\n") + data.endswith(b"\r")


def line_count(data: bytes) -> int:
    """Counts the newlines; several times as fast as `bytes.count`, and without Python's lock."""
    buffer = np.frombuffer(data, np.uint8)
    # A piece at a time, so that what is compared stays in the processor's cache.
    pieces = range(0, len(buffer), _COUNTED_BYTES)
    return sum(int(np.count_nonzero(buffer[low : low + _COUNTED_BYTES] == NEWLINE)) for low in pieces)


def line_ends(data: bytes, final: bool) -> Positions:
    """Offsets just behind each line end: \\n, \\r\\n, or a \\r alone. A last \\r may be half of one unless `final`."""
    buffer = np.frombuffer(data, np.uint8)
    if b"\r" not in data or not has_lone_return(data):
        return np.flatnonzero(buffer == NEWLINE) + 1
    found = buffer == RETURN
    found[:-1] &= buffer[1:] != NEWLINE
    found |= buffer == NEWLINE
    ends = np.flatnonzero(found) + 1
    return ends[:-1] if not final and data.endswith(b"\r") else ends


def quoting_fits(
    buffer: npt.NDArray[np.uint8], quotes: Positions, quote: bytes, delimiter: bytes, *, inside: bool
) -> bool:
    """Tells whether every quote in `buffer` stands where a quote may, if the buffer begins `inside` a quoted field.

    An opening quote follows a delimiter or a line end, a closing one precedes one; a doubled quote is a
    closing and an opening one side by side. What lies beyond the buffer's edges is not held against it.
    """
    if not len(quotes):
        return True
    neighbours = _neighbours(quote, delimiter)
    opening, closing = quotes[int(inside) :: 2], quotes[1 - int(inside) :: 2]
    if len(opening) and opening[0] == 0:
        opening = opening[1:]
    if len(closing) and closing[-1] == len(buffer) - 1:
        closing = closing[:-1]
    return bool(neighbours[buffer[opening - 1]].all() and neighbours[buffer[closing + 1]].all())


def _neighbours(quote: bytes, delimiter: bytes) -> npt.NDArray[np.bool_]:
    """Bytes that may stand before an opening and behind a closing quote."""
    found = np.zeros(256, bool)
    found[[NEWLINE, RETURN, delimiter[0], quote[0]]] = True
    return found


class FieldWalker:
    """Walks over the fields of a row.

    Args:
      quote: byte that quotes fields.
      delimiter: byte between fields.
      lenient: text may follow a closing quote, and fields hold line ends, as a lenient parser reads them.

    Attributes:
      reached: offset up to which the last walk read.
    """

    def __init__(self, quote: bytes, delimiter: bytes, *, lenient: bool) -> None:
        self._quote, self._delimiter, self._lenient = quote[0], delimiter[0], lenient
        q, d = re.escape(quote), re.escape(delimiter)
        stop = d if lenient else d + rb"\r\n"
        end = rb"(?=[%s]|\Z)" % stop
        rest = rb"(?!%s)[^%s]*" % (q, d) if lenient else end
        quoted = rb"%s[^%s]*(?:%s%s[^%s]*){0,255}%s" % (q, q, q, q, q, q) + rest
        field = rb"(?:" + quoted + rb"|[^%s%s][^%s]*|" % (q, stop, stop) + end + rb")"
        self._fields = re.compile(field + rb"(?:" + d + field + rb"){0,255}")
        self._inside = re.compile(rb"[^%s]*" % q)
        self._doubled = re.compile(rb"(?:%s%s[^%s]*){1,4096}" % (q, q, q))
        self._field_end = re.compile(end)
        self._rest = re.compile(rb"[^%s]*" % d)
        self.reached = 0

    def walk(self, data: bytes, at: int, size: int) -> int | None:
        """Finds the offset behind the fields that begin at `at`: a line end, or `size`. Returns None if they are no
        proper row.
        """
        while True:
            match = self._fields.match(data, at, size)
            end = self._quoted_end(data, at, size) if match is None else match.end()
            if end is None:
                return None
            self.reached = end
            if end == size or data[end] != self._delimiter:
                return end
            at = end + 1

    def _quoted_end(self, data: bytes, at: int, size: int) -> int | None:
        """Offset behind a quoted field with more doubled quotes than the pattern takes; None if it is no proper one."""
        at = self._end(self._inside, data, at + 1, size)
        while match := self._doubled.match(data, at, size):
            at = match.end()
        self.reached = at
        if at >= size or data[at] != self._quote:
            return None
        if self._lenient:
            return self._end(self._rest, data, at + 1, size)
        return at + 1 if self._field_end.match(data, at + 1, size) else None

    @staticmethod
    def _end(pattern: re.Pattern[bytes], data: bytes, at: int, size: int) -> int:
        match = pattern.match(data, at, size)
        return match.end() if match else at


class RowScanner:
    """Tells rows apart in text whose quotes do not add up: a row that is no proper row ends with its line.

    Between two quotes that stand wrong, rows are told apart by the parity of quotes, many at a time; from such a quote
    on row by row, until all is well again.

    Args:
      data: text that begins with a row.
      quotes: where its quotes are.
      quote: see FieldWalker.
      delimiter: see FieldWalker.
      final: nothing follows `data`.
    """

    def __init__(self, data: bytes, quotes: Positions, quote: bytes, delimiter: bytes, final: bool) -> None:
        self._data, self._final = data, final
        self._quotes = quotes
        self._walker = FieldWalker(quote, delimiter, lenient=False)
        # Numbers of 32 bits: there may be as many of each as there are bytes.
        self._lines = line_ends(data, final).astype(np.int32)
        self._counts = np.searchsorted(quotes, self._lines).astype(np.int32)
        wrong = self._wrong(quote, delimiter)
        # By the parity of the number of quotes before a row.
        self._wrong_from = [np.flatnonzero(found).astype(np.int32) for found in wrong]
        even = (self._counts & 1) == 0
        self._outside = [np.flatnonzero(found).astype(np.int32) for found in (even, ~even)]
        self._waste = _WASTE * len(data) + (1 << 20)

    def _wrong(self, quote: bytes, delimiter: bytes) -> list[npt.NDArray[np.bool_]]:
        """Which quotes stand wrong, if the first quote of a row, and every second one from there on, opens a field."""
        buffer = np.frombuffer(self._data, np.uint8)
        neighbours = _neighbours(quote, delimiter)
        wrong_opening = ~neighbours[buffer[np.maximum(self._quotes - 1, 0)]]
        wrong_closing = ~neighbours[buffer[np.minimum(self._quotes + 1, len(buffer) - 1)]]
        found = []
        for parity in (0, 1):
            wrong = wrong_closing.copy()
            wrong[parity::2] = wrong_opening[parity::2]
            found.append(wrong)
        return found

    def row_ends(self, max_row_bytes: int) -> Positions:
        """Offsets just behind the line end of each complete row.

        Args:
          max_row_bytes: an open quote may still be closed by what follows, if the row is not longer.
        """
        ends: list[npt.NDArray[np.int32]] = []
        line = -1
        while line < len(self._lines) - 1:
            parity = self._quotes_before(line) & 1
            wrong = self._next_wrong(self._quotes_before(line))
            fits = self._outside[parity]
            until = int(self._quotes[wrong]) if wrong < len(self._quotes) else len(self._data)
            low = int(np.searchsorted(fits, line, side="right"))
            high = int(np.searchsorted(fits, np.searchsorted(self._lines, until, side="right")))
            if low < high:
                ends.append(self._lines[fits[low:high]])
                line = int(fits[high - 1])
            closed = (len(self._quotes) - self._quotes_before(line)) % 2 == 0
            if wrong == len(self._quotes) and closed:
                break
            first = line
            line, found = self._row_by_row(line, max_row_bytes)
            ends.append(np.array(found, np.int32))
            if self._waste < 0:
                ends.append(self._lines[line + 1 :])
                break
            if line == first:
                break
        return np.concatenate([*ends, np.zeros(0, np.int32)]).astype(np.int64)

    def _row_by_row(self, line: int, max_row_bytes: int) -> tuple[int, list[int]]:
        """Rows from behind a line on, until many are without a fault; gives the last line too."""
        found: list[int] = []
        good, last, size = 0, len(self._lines) - 1, len(self._data)
        while line < last and good < _GOOD_ROWS and self._waste >= 0:
            at = self._start_of(line)
            end = self._walker.walk(self._data, at, size)
            good += 1
            following = line + 1
            if end is None:
                good = 0
                self._waste -= self._walker.reached - at
                may_be_open = not self._final and size - at <= max_row_bytes
                if may_be_open and (len(self._quotes) - self._quotes_before(line)) % 2:
                    return line, found
            elif end >= self._lines[following]:
                following = int(np.searchsorted(self._lines, end, side="right"))
                if following > last:
                    return line, found
            line = following
            found.append(int(self._lines[line]))
        return line, found

    def _start_of(self, line: int) -> int:
        """Offset of the row behind a line."""
        return int(self._lines[line]) if line >= 0 else 0

    def _quotes_before(self, line: int) -> int:
        """Number of quotes up to the end of a line."""
        return int(self._counts[line]) if line >= 0 else 0

    def _next_wrong(self, first: int) -> int:
        """Number of the next quote that stands wrong, if `first` opens a field; the number of quotes if none does."""
        wrong = self._wrong_from[first & 1]
        place = int(np.searchsorted(wrong, first))
        return int(wrong[place]) if place < len(wrong) else len(self._quotes)
