"""Rows that could not be processed, written down so that they can be run again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from typing_extensions import Self

from inference.predict import Rejected
from pipelines import files, shards
from pipelines.accounting import DEAD_LETTERS, ShardWritten
from pipelines.progress import TALLY
from pipelines.rows import DeadLetter, Origin, RejectedRow
from pipelines.streams.rolling import RollingFile

RECEIPTS = "receipts"
EXTENSION = "jsonl"


def at_bundle_end(value: Any) -> WindowedValue:
    """A value to emit from finish_bundle."""
    return WindowedValue(value, GlobalWindow().max_timestamp(), [GlobalWindow()])


class DeadLetterFile:
    """The dead letters of one bundle of one step; the file is made when the first comes."""

    def __init__(self, prefix: str, run_id: str) -> None:
        self._prefix = prefix
        self._run_id = run_id
        self._file: IO[bytes] | None = None
        self._path = ""
        self._rows = 0
        self._counter = Metrics.counter("predict", "rows_dead_lettered")

    def write(self, letter: DeadLetter) -> None:
        """Appends one."""
        self._open().write(letter.to_json())
        self._rows += 1
        self._counter.inc()
        TALLY.add(dead_lettered=1)

    def _open(self) -> IO[bytes]:
        if self._file is None:
            self._path = shards.temporary_path(self._prefix, self._run_id, EXTENSION)
            self._file = files.open_output(self._path)
            self._rows = 0
        return self._file

    def close(self) -> Iterator[ShardWritten]:
        """Closes the file and gives its receipt, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None
            yield ShardWritten(DEAD_LETTERS, self._path, self._rows)


class RollingDeadLetters(DeadLetterFile):
    """The dead letters of one step of a stream; durable at the end of each bundle, published by windows."""

    def __init__(self, prefix: str, window_s: float) -> None:
        super().__init__(prefix, "")
        self._rolling = RollingFile(prefix, EXTENSION, window_s)

    def _open(self) -> IO[bytes]:
        return self._rolling.open()

    def close(self) -> Iterator[ShardWritten]:
        """Ends a bundle."""
        self._rolling.flush()
        yield from ()


class DeadLetterDoFn(beam.DoFn):  # type: ignore[misc]
    """A step that can put rows into dead letters; gives their receipts in output "receipts".

    Args:
      prefix: of the dead letters' shards.
      run_id: of this run.
      model: the model as dead letters name it.
    """

    def __init__(self, prefix: str, run_id: str, model: str) -> None:
        self._prefix = prefix
        self._run_id = run_id
        self._model = model

    _rolled: RollingDeadLetters | None = None
    _window_s: float | None = None

    def rolling(self, window_s: float) -> Self:
        """Dead letters are published by windows of that many seconds, as a stream's are; there are no receipts."""
        self._window_s = window_s
        return self

    def start_bundle(self) -> None:
        if self._window_s is None:
            self._letters = DeadLetterFile(self._prefix, self._run_id)
            return
        if self._rolled is None:
            self._rolled = RollingDeadLetters(self._prefix, self._window_s)
        self._letters = self._rolled
        # The window may have ended while nothing came.
        for _ in self._letters.close():
            pass

    def finish_bundle(self) -> Iterator[Any]:
        for receipt in self._letters.close():
            yield beam.pvalue.TaggedOutput(RECEIPTS, at_bundle_end(receipt))

    def reject_undecoded(self, row: RejectedRow, file: str, format: dict[str, Any], attempts: int = 1) -> None:
        """A row that the format could not decode."""
        source = f"{file}:{row.position}"
        self._letters.write(
            DeadLetter(
                key=source if row.key is None else row.key,
                payload=row.payload,
                stage=row.stage,
                error=row.error,
                message=row.message,
                attempts=attempts,
                model=self._model,
                source=source,
                format=format,
                payload_truncated=row.truncated,
            )
        )

    def reject_row(
        self, origin: Origin, row: int, key: str | None, stage: str, error: str, message: str, attempts: int = 1
    ) -> None:
        """A decoded row that a later step could not process."""
        source = origin.source(row)
        self._letters.write(
            DeadLetter(
                key=key if key is not None else origin.names(np.array([row]))[0].as_py(),
                payload=origin.payload(row),
                stage=stage,
                error=error,
                message=message,
                attempts=attempts + getattr(origin, "earlier_attempts", 0),
                model=self._model,
                source=source,
                format=origin.format,
                payload_truncated=False,
            )
        )


class RejectUnpredicted(DeadLetterDoFn):
    """Writes the rows that `Predict` rejected to the dead letters.

    Args:
      key_column: the column that identifies a row, if there is one.
    """

    def __init__(self, prefix: str, run_id: str, model: str, key_column: str | None) -> None:
        super().__init__(prefix, run_id, model)
        self._key_column = key_column

    def process(self, rejected: Rejected) -> None:
        keys = rejected.rows[self._key_column].to_pylist() if self._key_column else [None] * len(rejected.failures)
        for key, (row, failure) in zip(keys, rejected.failures.items(), strict=True):
            self.reject_row(
                rejected.key,
                row,
                None if key is None else str(key),
                failure.stage,
                failure.error,
                failure.message,
                failure.attempts,
            )
