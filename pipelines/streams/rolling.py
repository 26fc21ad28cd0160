"""Files that a stream appends to, published when their window of time is over.

What a bundle wrote is on the disk when the bundle ends, before its messages are acknowledged; readers see a file when
it is renamed to its place. What a killed run left unpublished is published by the next one: whole lines, a torn last
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

from pipelines import files

_PART = ".part"
_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.[a-z]+$")
_open_files: set[RollingFile] = set()
_lock = threading.Lock()


class RollingFile:
    """Bytes that are appended, published by windows. Used by one thread at a time, but closed by any.

    Args:
      prefix: of the files; a folder if it ends in a slash.
      extension: without a dot; the content must be lines.
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
        os.fsync(self._file.fileno())

    def publish(self) -> None:
        """Ends the window's file, if there is one."""
        if self._file is not None:
            if not files.is_remote(self._part):
                self._file.flush()
                # A write that failed, for want of space perhaps, has left a part of a row.
                with open(self._part, "r+b") as written:
                    _cut_torn_line(written)
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
            _cut_torn_line(file)
            if os.path.exists(part):
                os.replace(part, _final_of(part))
                count += 1
    return count


def recovered(prefix: str, extension: str) -> list[str]:
    """Publishes what a killed run left; gives a line about it."""
    count = recover(prefix, extension)
    return [f"published {count} file{'s' * (count > 1)} that a stopped run left at {prefix}"] if count else []


def _cut_torn_line(file: IO[bytes]) -> None:
    """Cuts what stands behind the last line end."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - (1 << 16))
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    file.truncate(end)


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
