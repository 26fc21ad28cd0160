"""Appends to files of a stream, which are published when their window of time is over.

What a bundle wrote is on the disk when the bundle ends, before its messages are acknowledged; readers see a file when
it is renamed to its place. What a killed run left unpublished is published by the next one: whole rows, a torn last
one is cut off. Where files cannot be appended to durably (gs://), each bundle's file is published at its end.

A name is `<prefix>-<begin of the window, UTC>-<8 hex digits>.<extension>`.
"""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import IO

import numpy as np

from pipelines import storage
from pipelines.connectors.files.publishing import shards

_PART = ".part"
_PIECE = 1 << 20
_open_files: set[RollingFile] = set()
_lock = threading.Lock()


class RollingFile:
    """Appends bytes to files that are published by windows. Used by one thread at a time, but closed by any.

    Args:
      prefix: of the files; a folder if it ends in a slash.
      extension: without a dot; the content must be lines, but that values of .csv may hold line ends in quotes.
      window_s: length of a window in seconds.
      clock: seconds since the epoch.
      mode: access rights of the files, exactly; None: what the process's umask leaves.
    """

    def __init__(
        self,
        prefix: str,
        extension: str,
        window_s: float,
        clock: Callable[[], float] = time.time,
        mode: int | None = None,
    ) -> None:
        self._mode = mode
        self._prefix = prefix
        self._extension = extension
        self._window_s = window_s
        self._clock = clock
        self._file: IO[bytes] | None = None
        self._part = self._final = ""
        self._until = 0.0
        self._whole = 0
        self._closing = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Tells whether a window's file is being written."""
        return self._file is not None

    def open(self) -> IO[bytes]:
        """Returns the file of this window; a new one is empty."""
        if self._file is None:
            begins = self._clock() // self._window_s * self._window_s
            self._until = begins + self._window_s
            stamp = datetime.fromtimestamp(begins, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
            self._part, self._final = _paths(self._prefix, f"{stamp}-{uuid.uuid4().hex[:8]}.{self._extension}")
            self._file = storage.open_output(self._part, 0o666 if self._mode is None else self._mode & 0o600)
            self._whole = 0
            # Not when the object is made: a copy that a worker has unpickled was not made there.
            with _lock:
                _open_files.add(self)
            if not storage.is_remote(self._part):
                fcntl.flock(self._file, fcntl.LOCK_EX)
                if self._mode is not None:
                    os.fchmod(self._file.fileno(), self._mode)
        return self._file

    def flush(self) -> None:
        """Makes what was written durable; publishes it if its window is over."""
        if self._file is None:
            return
        if storage.is_remote(self._part) or self._clock() >= self._until:
            self.publish()
            return
        self._file.flush()
        self._whole = self._file.tell()
        os.fsync(self._file.fileno())
        self._look_for_it()

    def _look_for_it(self) -> None:
        """Raises OSError if the file is not in its place any more: what was written to it would be lost."""
        assert self._file is not None
        try:
            is_there = os.path.samestat(os.fstat(self._file.fileno()), os.lstat(self._part))
        except (FileNotFoundError, NotADirectoryError):
            is_there = False
        if not is_there:
            lost, self._file = self._file, None
            lost.close()
            raise OSError(
                f"{self._part}, to which the stream was writing, was removed or replaced; the rows in it are lost: "
                f"keep {self._final.rpartition('/')[0] or '.'} as it is while a stream writes there"
            )

    def publish(self) -> None:
        """Ends the window's file, if there is one."""
        if self._file is not None:
            if not storage.is_remote(self._part):
                self._file.flush()
                # A write that failed, for want of space perhaps, has left a part of a row.
                _cut_torn_row(self._file, self._extension == "csv", self._whole)
                os.fsync(self._file.fileno())
                self._look_for_it()
            self._file.close()
            self._file = None
            storage.rename([(self._part, self._final)])
            storage.sync_folder(os.path.dirname(self._final))

    def close(self) -> None:
        """Publishes, and is forgotten."""
        # At the end of a run a worker may do so at the same time as the run itself.
        with self._closing:
            self.publish()
        with _lock:
            _open_files.discard(self)


def close_all() -> None:
    """Publishes what is open in this process, at the end of a run, and of a worker that is a process of its own."""
    with _lock:
        left = list(_open_files)
    for file in left:
        file.close()


def recover(prefix: str, extension: str) -> int:
    """Publishes what a killed run left. Files that another run has open stay.

    So is what no run has left: links (also hard ones), other users' files, and names that no stream gives.

    Returns:
      How many files.
    """
    if storage.is_remote(prefix):
        return 0
    folder, stem = shards.split_prefix(prefix)
    count = 0
    for entry in storage.entries(folder, f".{stem}"):
        final = entry.name[1 : -len(_PART)]
        if entry.name.endswith(_PART) and shards.is_rolling_file(prefix, final, extension):
            count += _recover_one(folder + entry.name, folder + final, extension)
    return count


def _recover_one(part: str, final: str, extension: str) -> bool:
    """Publishes one file; tells whether it was a stopped run's."""
    try:
        file = os.fdopen(os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), "r+b")
    except OSError:
        return False
    with file:
        status = os.fstat(file.fileno())
        is_ours = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()
        if not is_ours or os.path.lexists(final):
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        _cut_torn_row(file, extension == "csv")
        file.flush()
        os.fsync(file.fileno())
        if not os.path.lexists(part):
            return False
        os.replace(part, final)
        return True


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


def published(prefix: str, extension: str) -> list[str]:
    """Returns the published files under a prefix, sorted."""
    folder, stem = shards.split_prefix(prefix)
    names = [entry.name for entry in storage.entries(folder, stem) if entry.size is not None]
    return [folder + name for name in names if shards.is_rolling_file(prefix, name, extension)]


def pattern(prefix: str, extension: str) -> str:
    """Returns a glob for the published files."""
    return _paths(prefix, f"*.{extension}")[1]
