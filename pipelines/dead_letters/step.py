"""Writes down rows that could not be processed, so that they can be run again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from typing_extensions import Self

from inference.errors import Failure
from inference.predict import Rejected
from model.secrets import masked
from pipelines.dead_letters.limit import DeadLetterLimit
from pipelines.dead_letters.place import DeadLetterPlace, DeadLetterWriter
from pipelines.formats.output_values import key_texts
from pipelines.rows.origin import DeadLetter, Origin, RejectedRow, text_of
from pipelines.telemetry.tally import TALLY

RECEIPTS = "receipts"


def at_bundle_end(value: Any) -> WindowedValue:
    """Wraps a value that finish_bundle emits."""
    return WindowedValue(value, GlobalWindow().max_timestamp(), [GlobalWindow()])


class DeadLetterDoFn(beam.DoFn):  # type: ignore[misc]
    """Puts rows into dead letters; gives their receipts in output "receipts".

    Args:
      dead_letters: where they go.
      model: the model as dead letters name it.
    """

    _dead_letter_writer: DeadLetterWriter | None = None
    _limit: DeadLetterLimit | None = None

    def __init__(self, dead_letters: DeadLetterPlace, model: str) -> None:
        self._dead_letter_place = dead_letters
        self._model = model
        self._rejected = Metrics.counter("predict", "rows_dead_lettered")

    def limited_by(self, limit: DeadLetterLimit) -> Self:
        """Ends the run with a TooManyFailuresError once there are so many dead letters that it cannot end well."""
        self._limit = limit
        return self

    # Not a property: Beam reads every attribute of a step when a pipeline is built, and would pickle an open writer.
    def dead_letters(self) -> DeadLetterWriter:
        """Returns what writes them in this worker."""
        if self._dead_letter_writer is None:
            self._dead_letter_writer = self._dead_letter_place.open()
        return self._dead_letter_writer

    def start_bundle(self) -> None:
        self.dead_letters().begin_bundle()

    def finish_bundle(self) -> Iterator[Any]:
        for receipt in self.dead_letters().end_bundle():
            yield beam.pvalue.TaggedOutput(RECEIPTS, at_bundle_end(receipt))

    def teardown(self) -> None:
        if self._dead_letter_writer is not None:
            self._dead_letter_writer.close()
            self._dead_letter_writer = None

    def handed_on(self) -> Iterator[Any]:
        """Yields, in output "receipts", the dead letters whose place hands them on; after each that may be one."""
        for dead_letter in self.dead_letters().handed_on():
            yield beam.pvalue.TaggedOutput(RECEIPTS, dead_letter)

    def put(self, dead_letter: DeadLetter) -> None:
        """Writes a dead letter, and counts it. Raises TooManyFailuresError."""
        self.dead_letters().write(dead_letter)
        self._rejected.inc(dead_letter.rows)
        TALLY.add(dead_lettered=dead_letter.rows)
        TALLY.note_error(dead_letter.stage, dead_letter.error, dead_letter.key, dead_letter.message)
        if self._limit is not None:
            self._limit.check()

    def reject_undecoded(self, row: RejectedRow, file: str, format: dict[str, Any], attempts: int = 1) -> None:
        """Writes a dead letter for a row that the format could not decode."""
        source = f"{text_of(file)}:{row.position}"
        self.put(
            DeadLetter(
                key=source if row.key is None else row.key,
                payload=row.payload,
                stage=row.stage,
                error=row.error,
                message=masked(row.message),
                attempts=attempts,
                model=self._model,
                source=source,
                format=format,
                payload_truncated=row.truncated,
                rows=row.rows,
            )
        )

    def reject_row(
        self, origin: Origin, row: int, key: str | None, stage: str, error: str, message: str, attempts: int = 1
    ) -> None:
        """Writes a dead letter for a decoded row that a later step could not process."""
        source = origin.source(row)
        self.put(
            DeadLetter(
                key=key if key is not None else origin.names(np.array([row]))[0].as_py(),
                payload=origin.payload(row),
                stage=stage,
                error=error,
                message=masked(message),
                attempts=attempts + getattr(origin, "earlier_attempts", 0),
                model=self._model,
                source=source,
                format=origin.format,
                payload_truncated=False,
            )
        )

    def reject_failures(
        self, origin: Origin, rows: pa.RecordBatch, failures: Mapping[int, Failure], key_column: str | None
    ) -> None:
        """Writes dead letters for rows that have no prediction.

        Args:
          origin: where the rows come from.
          rows: their columns.
          failures: number of the row in the origin -> why, in the order of `rows`.
          key_column: the column that identifies a row, if there is one.
        """
        keys = key_texts(rows[key_column]) if key_column else [None] * len(failures)
        for key, (row, failure) in zip(keys, failures.items(), strict=True):
            self.reject_row(origin, row, key, failure.stage, failure.error, failure.message, failure.attempts)


class RejectUnpredicted(DeadLetterDoFn):
    """Writes the rows that `Predict` rejected to the dead letters.

    Args:
      dead_letters: where they go.
      model: the model as dead letters name it.
      key_column: the column that identifies a row, if there is one.
    """

    def __init__(self, dead_letters: DeadLetterPlace, model: str, key_column: str | None) -> None:
        super().__init__(dead_letters, model)
        self._key_column = key_column

    def process(self, rejected: Rejected) -> None:
        self.reject_failures(rejected.key, rejected.rows, rejected.failures, self._key_column)
