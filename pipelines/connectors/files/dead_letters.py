"""TODO pipelines.connectors.files.dead_letters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from pipelines import storage
from pipelines.connectors.files.publishing import shards
from pipelines.dead_letters.place import LetterBox
from pipelines.rows.origin import DeadLetter
from pipelines.telemetry.accounting import DEAD_LETTERS, ShardWritten

EXTENSION = "jsonl"


class DeadLetterFile(LetterBox):
    """The dead letters of one bundle of one step; the file is made when the first comes, and published with the run."""

    def __init__(self, prefix: str, run_id: str) -> None:
        self._prefix = prefix
        self._run_id = run_id
        self._file: IO[bytes] | None = None
        self._path = ""
        self._rows = 0

    def begin_bundle(self) -> None:
        self._file = None

    def write(self, letter: DeadLetter) -> None:
        if self._file is None:
            self._path = shards.temporary_path(self._prefix, self._run_id, EXTENSION)
            self._file = shards.create_private(self._path)
            self._rows = 0
        self._file.write(letter.to_json())
        self._rows += letter.rows

    def end_bundle(self) -> Iterator[ShardWritten]:
        if self._file is not None:
            size = storage.close_durably(self._file)
            self._file = None
            yield ShardWritten(DEAD_LETTERS, self._path, self._rows, size)

    def close(self) -> None:
        self._file = None
