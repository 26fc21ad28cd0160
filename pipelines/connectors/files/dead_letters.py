"""Writes dead letters to files, lines of JSON: shards published with a batch run, or by windows of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import google_crc32c

from pipelines import storage
from pipelines.connectors.files import rolling, written_keys
from pipelines.connectors.files.publishing import shards
from pipelines.dead_letters.place import DeadLetterPlace, DeadLetterWriter
from pipelines.rows.origin import DeadLetter
from pipelines.telemetry.accounting import DEAD_LETTERS, ShardWritten

if TYPE_CHECKING:
    import pyarrow as pa

EXTENSION = "jsonl"


@dataclass(frozen=True)
class ShardedDeadLetters(DeadLetterPlace):
    """Puts the dead letters of a batch run into shards that are published with it.

    Attributes:
      prefix: of their names.
      run_id: of the run.
    """

    prefix: str
    run_id: str

    def check(self) -> None:
        """Does nothing: the run has reserved the folder."""

    def open(self) -> DeadLetterWriter:
        return _ShardWriter(self)

    def describe(self) -> str:
        return f"{self.prefix}-*.{EXTENSION}"


class _ShardWriter(DeadLetterWriter):
    """Writes the dead letters of one bundle of one step, to a file made for the first of them."""

    def __init__(self, place: ShardedDeadLetters) -> None:
        self._place = place
        self._file: IO[bytes] | None = None
        self._path = ""
        self._rows = 0
        self._checksum = 0

    def begin_bundle(self) -> None:
        self._file = None

    def write(self, dead_letter: DeadLetter) -> None:
        if self._file is None:
            self._path = shards.temporary_path(self._place.prefix, self._place.run_id, EXTENSION)
            self._file = shards.create_private(self._path)
            self._rows = self._checksum = 0
        line = dead_letter.to_json()
        self._file.write(line)
        self._checksum = google_crc32c.extend(self._checksum, line)
        self._rows += dead_letter.rows

    def end_bundle(self) -> Iterator[ShardWritten]:
        if self._file is not None:
            size = storage.close_durably(self._file)
            self._file = None
            yield ShardWritten(DEAD_LETTERS, self._path, self._rows, size, self._checksum)

    def close(self) -> None:
        self._file = None


@dataclass(frozen=True)
class RollingDeadLetters(DeadLetterPlace):
    """Puts the dead letters of a stream into files that are published by windows.

    Attributes:
      prefix: of them.
      window_s: a file is published when it is so many seconds old.
      mode: access rights of the files.
    """

    prefix: str
    window_s: float
    mode: int

    def check(self) -> None:
        """Does nothing: the plan has looked at the folder."""

    def recover(self) -> list[str]:
        return rolling.recovered(self.prefix, EXTENSION)

    def written_keys(self, seconds: float) -> Iterator[tuple[float, pa.Array]]:
        return written_keys.keys(self.prefix, EXTENSION, "key", seconds, self.window_s)

    def open(self) -> DeadLetterWriter:
        return _RollingWriter(self)

    def describe(self) -> str:
        return rolling.pattern(self.prefix, EXTENSION)


class _RollingWriter(DeadLetterWriter):
    def __init__(self, place: RollingDeadLetters) -> None:
        self._rolling = rolling.RollingFile(place.prefix, EXTENSION, place.window_s, mode=place.mode)

    def begin_bundle(self) -> None:
        # The window may have ended while nothing came.
        self._rolling.flush()

    def write(self, dead_letter: DeadLetter) -> None:
        self._rolling.open().write(dead_letter.to_json())

    def end_bundle(self) -> tuple[()]:
        self._rolling.flush()
        return ()

    def close(self) -> None:
        self._rolling.close()
