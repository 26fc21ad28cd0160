"""Files that a stream appends to, published when their window of time is over.

What a bundle wrote is on the disk when the bundle ends, before its messages are acknowledged; readers see a file when
it is renamed to its place. What a killed run left unpublished is published by the next one: whole rows, a torn last
one is cut off. Where files cannot be appended to durably (gs://), each bundle's file is published at its end.

A name is `<prefix>-<begin of the window, UTC>-<8 hex digits>.<extension>`.
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import IO

import numpy as np

from pipelines import files

_PART = ".part"
_PIECE = 1 << 20
_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.[a-z]+$")
_open_files: set[RollingFile] = set()
_lock = threading.Lock()


class RollingFile:
    """Bytes that are appended, published by windows. Used by one thread at a time, but closed by any.

    Args:
      prefix: of the files; a folder if it ends in a slash.
      extension: without a dot; the content must be lines, but that values of .csv may hold line ends in quotes.
      window_s: length of a window in seconds.
      clock: seconds since the epoch.
    """

    def __init__(self, prefix: str, extension: str, window_s: float, clock: Callable[[], float] = time.time) -> None:
        self._prefix = prefix
        self._extension = extension
        self._window_s = window_s
        self._clock = clock
        self._file: IO[bytes] | None = None
        self._part = self._final = ""
        self._until = 0.0
        self._whole = 0
        self._closing = threading.Lock()
        with _lock:
            _open_files.add(self)

    @property
    def is_open(self) -> bool:
        """Whether a window's file is being written."""
        return self._file is not None

    def open(self) -> IO[bytes]:
        """The file of this window; a new one is empty."""
        if self._file is None:
            begins = self._clock() // self._window_s * self._window_s
            self._until = begins + self._window_s
            stamp = datetime.fromtimestamp(begins, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
            self._part, self._final = _paths(self._prefix, f"{stamp}-{uuid.uuid4().hex[:8]}.{self._extension}")
            self._file = files.open_output(self._part)
            self._whole = 0
            if not files.is_remote(self._part):
                fcntl.flock(self._file, fcntl.LOCK_EX)
        return self._file

    def flush(self) -> None:
        """Makes what was written durable; publishes it if its window is over."""
        if self._file is None:
            return
        if files.is_remote(self._part) or self._clock() >= self._until:
            self.publish()
            return
        self._file.flush()
        self._whole = self._file.tell()
        os.fsync(self._file.fileno())

    def publish(self) -> None:
        """Ends the window's file, if there is one."""
        if self._file is not None:
            if not files.is_remote(self._part):
                self._file.flush()
                # A write that failed, for want of space perhaps, has left a part of a row.
                with open(self._part, "r+b") as written:
                    _cut_torn_row(written, self._extension == "csv", self._whole)
                os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            files.rename(self._part, self._final)

    def close(self) -> None:
        """Publishes, and is forgotten."""
        # At the end of a run a worker may do so at the same time as the run itself.
        with self._closing:
            self.publish()
        with _lock:
            _open_files.discard(self)


def close_all() -> None:
    """Publishes what is open in this process, at the end of a run."""
    with _lock:
        left = list(_open_files)
    for file in left:
        file.close()


def recover(prefix: str, extension: str) -> int:
    """Publishes what a killed run left. Files that another run has open are let be.

    Returns:
      How many files.
    """
    if files.is_remote(prefix):
        return 0
    pattern, _ = _paths(glob.escape(prefix), f"*.{extension}")
    count = 0
    for part in glob.glob(pattern):
        with open(part, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            _cut_torn_row(file, extension == "csv")
            if os.path.exists(part):
                os.replace(part, _final_of(part))
                count += 1
    return count


def recovered(prefix: str, extension: str) -> list[str]:
    """Publishes what a killed run left; gives a line about it."""
    count = recover(prefix, extension)
    return [f"published {count} file{'s' * (count > 1)} that a stopped run left at {prefix}"] if count else []


def _cut_torn_row(file: IO[bytes], has_quotes: bool, begin: int = 0) -> None:
    """Cuts what stands behind the last whole row.

    Args:
      file: open for reading and writing.
      has_quotes: a line end within double quotes is not the end of a row.
      begin: where a row begins, or the file ends.
    """
    pieces = range(begin, file.seek(0, os.SEEK_END), _PIECE)
    end = begin
    for piece, is_quoted in reversed(list(zip(pieces, _quoted(file, pieces, has_quotes), strict=True))):
        file.seek(piece)
        content = file.read(_PIECE)
        found = _last_end(content, is_quoted) if has_quotes else content.rfind(b"\n") + 1
        if found:
            end = piece + found
            break
    file.truncate(end)


def _quoted(file: IO[bytes], pieces: range, has_quotes: bool) -> list[bool]:
    """Whether each piece begins within a quoted value."""
    is_quoted, found = False, []
    for piece in pieces:
        found.append(is_quoted)
        if has_quotes:
            file.seek(piece)
            is_quoted ^= bool(file.read(_PIECE).count(b'"') & 1)
    return found


def _last_end(content: bytes, is_quoted: bool) -> int:
    """Where the last row ends that ends in some CSV; 0 if none does."""
    data = np.frombuffer(content, np.uint8)
    quotes = np.cumsum(data == ord('"'), dtype=np.int64) + is_quoted
    ends = np.flatnonzero((data == ord("\n")) & (quotes & 1 == 0))
    return int(ends[-1]) + 1 if len(ends) else 0


def _paths(prefix: str, name: str) -> tuple[str, str]:
    """Where a file is written, hidden, and where it is published."""
    folder, slash, stem = prefix.rpartition("/")
    shown = f"{stem}-{name}" if stem else name
    return f"{folder}{slash}.{shown}{_PART}", f"{folder}{slash}{shown}"


def _final_of(part: str) -> str:
    folder, name = os.path.split(part)
    return os.path.join(folder, name[1 : -len(_PART)])


def published(prefix: str, extension: str) -> list[str]:
    """The published files under a prefix, sorted."""
    found = [file.path for file in files.match(pattern(prefix, extension))]
    return sorted(path for path in found if _NAME.search(path))


def pattern(prefix: str, extension: str) -> str:
    """A glob for the published files."""
    return _paths(prefix, f"*.{extension}")[1]
