"""Dead letters of a stream in files, lines of JSON, published by windows (see streams/rolling.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.connectors.files import rolling
from pipelines.connectors.files import written_keys as written
from pipelines.dead_letters.place import LetterBox, LetterPlace
from pipelines.rows.origin import DeadLetter

if TYPE_CHECKING:
    import pyarrow as pa

EXTENSION = "jsonl"


@dataclass(frozen=True)
class FileLetters(LetterPlace):
    """Files.

    Attributes:
      prefix: of them.
      window_s: a file is published when it is so many seconds old.
      mode: access rights of the files.
    """

    prefix: str
    window_s: float
    mode: int

    def check(self) -> None:
        """The plan has looked at the folder."""

    def recover(self) -> list[str]:
        return rolling.recovered(self.prefix, EXTENSION)

    def written_keys(self, seconds: float) -> Iterator[tuple[float, pa.Array]]:
        return written.keys(self.prefix, EXTENSION, "key", seconds, self.window_s)

    def open(self) -> LetterBox:
        return _FileBox(self)

    def describe(self) -> str:
        return rolling.pattern(self.prefix, EXTENSION)


class _FileBox(LetterBox):
    def __init__(self, place: FileLetters) -> None:
        self._rolling = rolling.RollingFile(place.prefix, EXTENSION, place.window_s, mode=place.mode)

    def begin_bundle(self) -> None:
        # The window may have ended while nothing came.
        self._rolling.flush()

    def write(self, letter: DeadLetter) -> None:
        self._rolling.open().write(letter.to_json())

    def end_bundle(self) -> tuple[()]:
        self._rolling.flush()
        return ()

    def close(self) -> None:
        self._rolling.close()
