"""Makes sure that a file stays what it was while a run reads it.

| what happens to a file during a run | the run |
|---|---|
| rows are appended (local CSV, JSON, TFRecord, Avro) | reads what was there when it began |
| rows are appended to a text file whose last line was not complete | fails |
| it becomes shorter, is replaced, written over or removed | fails |

A run that fails publishes nothing. Written over is seen by size and time of the last change; a local file that has
grown is compared by the last bytes that were there before, too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from pipelines import storage
from pipelines.storage import FileInfo

_TAIL_BYTES = 4096


class SourceChangedError(RuntimeError):
    """Raised when a file changed while it was read. The message is for people."""


@dataclass(frozen=True)
class FileVersion:
    """Describes a file as it was when a run began to read it.

    Attributes:
      info: path, size, time of the last change.
      tail: checksum of the last 4 KiB of a local file; 0 for a remote one, to which nothing is ever appended.
    """

    info: FileInfo
    tail: int

    @classmethod
    def of(cls, info: FileInfo) -> FileVersion:
        """Returns the version of a file that has just been described."""
        return cls(info, _tail(info))

    def may_have_grown(self, now: FileInfo) -> bool:
        """Tells whether all that has changed is that bytes were added to a local file."""
        grown = now.size > self.info.size and not storage.is_remote(now.path)
        return grown and _tail(self.info) == self.tail


def require_unchanged(version: FileVersion, what: str, may_grow: Callable[[], bool]) -> None:
    """Checks a file that was read.

    Args:
      version: the file as the run began to read it.
      what: what was read of it, for the error: "bytes 0 to 100".
      may_grow: whether rows may have been appended to it since; called if it has grown.

    Raises:
      SourceChangedError: it is not the file any more that it was.
    """
    planned = version.info
    try:
        now = storage.describe(planned.path)
    except FileNotFoundError:
        raise _changed(version, what, "it was removed or renamed") from None
    if _same(planned, now):
        return
    if now.size < planned.size:
        raise _changed(version, what, f"it had {planned.size:,} bytes and has {now.size:,} now")
    if not version.may_have_grown(now):
        raise _changed(version, what, "it was written over or replaced")
    if not may_grow():
        raise _changed(
            version, what, f"it has grown from {planned.size:,} to {now.size:,} bytes, amid a row or a table"
        )


def current(planned: FileInfo) -> FileVersion:
    """Returns the version of a file of a plan that a run begins to read; the file may have grown since it was planned.

    Raises:
      SourceChangedError: it has become shorter, was written over, or removed.
    """
    try:
        now = storage.describe(planned.path)
    except FileNotFoundError:
        raise SourceChangedError(f"{planned.path} was removed after the run was planned; run it again") from None
    if now.size <= planned.size and not _same(planned, now):
        raise SourceChangedError(
            f"{planned.path} changed after the run was planned: it had {planned.size:,} bytes, has {now.size:,} now, "
            "or was written over; run it again when nothing writes the file"
        )
    return FileVersion.of(now)


def _same(planned: FileInfo, now: FileInfo) -> bool:
    known = planned.modified and now.modified
    return planned.size == now.size and (not known or planned.modified == now.modified)


def _tail(info: FileInfo) -> int:
    if storage.is_remote(info.path):
        return 0
    return zlib.crc32(storage.read_range(info.path, max(0, info.size - _TAIL_BYTES), info.size))


def _changed(version: FileVersion, what: str, how: str) -> SourceChangedError:
    return SourceChangedError(
        f"{version.info.path} changed while {what} of it were read: {how}; run again when nothing writes the file"
    )
