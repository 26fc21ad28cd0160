"""Finds where rows begin in the middle of a file whose quoted fields may hold line ends."""

from __future__ import annotations

import io
from typing import IO, cast

import numpy as np

from pipelines import storage
from pipelines.formats.base import MAX_ROW_BYTES
from pipelines.formats.dialect import Dialect
from pipelines.formats.quoting import quoting_fits

_WINDOW = 1 << 20


class RowFinder:
    """Finds rows in the middle of a file.

    Whether a quoted field is open at some place shows at the next quote behind it: an opening quote follows a
    delimiter or a line end, a closing one precedes one. Both readings are tried on a window of the file that begins
    there, and one of them must be the only one that fits.

    Args:
      file: the raw file, seekable. A local one is searched for its next quote as far as a row may reach, a remote one
        only as far as one window, so that not all of it is read twice.
      dialect: of the file.
    """

    def __init__(self, file: IO[bytes], dialect: Dialect) -> None:
        self._file = file
        self._dialect = dialect
        self._quote = cast(bytes, dialect.quote)
        self._reach = MAX_ROW_BYTES if isinstance(file, io.FileIO) else _WINDOW
        self._clear = (0, 0)
        # One for all windows: memory that is new for each takes twice as long as reading does.
        self._window = bytearray(_WINDOW)

    def next_row(self, wanted: int) -> int | None:
        """Finds the offset of the first row that begins at or after `wanted`; None where that cannot be told for
        certain.
        """
        inside = False
        quote = self._next_quote(wanted - 1)
        if quote is not None:
            buffer = np.frombuffer(self._read(max(quote - 1, wanted - 1), _WINDOW), np.uint8)
            quotes = np.flatnonzero(buffer == self._quote[0])
            delimiter = self._dialect.delimiter
            fits = [quoting_fits(buffer, quotes, self._quote, delimiter, inside=state) for state in (False, True)]
            if fits[0] == fits[1]:
                return None
            inside = fits[1]
        window = min(_WINDOW, 1 << 14)
        while window <= 2 * max(MAX_ROW_BYTES, _WINDOW):
            data = self._read(wanted - 1, window)
            buffer = np.frombuffer(data, np.uint8)
            quotes, newlines = np.flatnonzero(buffer == self._quote[0]), np.flatnonzero(buffer == 10)
            outside = newlines[(np.searchsorted(quotes, newlines) + inside) % 2 == 0]
            if len(outside):
                return wanted + int(outside[0])
            if len(data) < window:
                return wanted - 1 + len(data)
            window *= 4
        return None

    def _read(self, start: int, count: int) -> bytes:
        self._file.seek(start)
        return storage.read_fully(self._file, count)

    def _next_quote(self, start: int) -> int | None:
        """Offset of the next quote, None if there is none within reach; what was found clear is not read again."""
        at, end = start, start + self._reach
        if self._clear[0] <= start < self._clear[1]:
            at = self._clear[1]
        self._file.seek(at)
        while at < end:
            count = self._file.readinto(memoryview(self._window)[: end - at])  # type: ignore[attr-defined]
            if not count:
                break
            place = self._window.find(self._quote, 0, count)
            if place >= 0:
                self._clear = (start, at + place)
                return at + place
            at += count
        self._clear = (start, at)
        return None
