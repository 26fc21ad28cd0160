"""Writes rows: encodes them, and puts those that cannot be written into the dead letters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics

from inference.columns.coercion import is_text
from inference.marks import rows_of
from inference.sizes import bounded
from pipelines.connectors.streaming.batch_sizing import note_total
from pipelines.connectors.writing.columns import keys_of
from pipelines.connectors.writing.planned_types import as_planned, without
from pipelines.connectors.writing.row_writer import Answers, OutputRows, RowRefusedError, RowWriter
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.dead_letters.step import DeadLetterDoFn, at_bundle_end
from pipelines.formats.output_values import key_texts, to_output
from pipelines.rows.messages import MessageOrigin
from pipelines.rows.origin import Origin, Positions
from pipelines.telemetry.latency import LATENCIES
from pipelines.telemetry.tally import TALLY

ENCODED_BYTES = 64 << 20
"""Decoded bytes of rows that are encoded together."""
_MANY_ROWS = 4_096
"""An element of so many rows came because there are more: its answers are waited for while the next one is read."""


class WriteRows(DeadLetterDoFn):
    """Writes rows: (Origin, record batch) -> receipts of files. Rows are durable when the next element comes or the
    bundle ends.

    What the writer raises is halved until the row that is at fault stands alone; that one goes to the dead letters, and
    so does a row that a service refuses. The neighbours of such rows stay written.

    Args:
      writer: writes the encoded rows.
      key_column: the source column that is the key, if there is one.
      dead_letters: where rows go that cannot be written.
      model: the model as dead letters name it.
    """

    _element: tuple[Origin, pa.RecordBatch] | None = None
    """What is written, and perhaps not durable yet."""
    _unanswered: tuple[Answers, OutputRows] | None = None
    """The last write that a service has not answered for yet."""

    def __init__(self, writer: RowWriter, key_column: str | None, dead_letters: DeadLetterPlace, model: str) -> None:
        super().__init__(dead_letters, model)
        self._writer = writer
        self._key_column = key_column
        self._written = Metrics.counter("predict", "rows_written")

    def setup(self) -> None:
        self._writer.open()

    def start_bundle(self) -> None:
        # What a bundle that failed has sent is read again.
        self._element = self._unanswered = None
        super().start_bundle()
        self._writer.begin_bundle()

    def process(self, element: tuple[Origin, pa.RecordBatch]) -> None:
        began = time.perf_counter()
        self._settle()
        self._element = element
        origin, batch = element
        batch, rows = self._as_planned(origin, batch)
        # Encoded in slices: dictionaries are written out, and text may become several times as long.
        sizes = [part.num_rows for part in bounded(batch, ENCODED_BYTES)]
        ends = np.cumsum(sizes).tolist()
        pending = list(zip([0, *ends[:-1]], ends, strict=True))[::-1]
        while pending:
            low, high = pending.pop()
            self._take_answers()
            try:
                self._write(origin, batch.slice(low, high - low), rows[low:high])
            except (pa.ArrowException, ValueError, ArithmeticError) as error:
                if high - low == 1:
                    self._reject(origin, batch, low, int(rows[low]), error)
                else:
                    middle = (low + high) // 2
                    pending += [(middle, high), (low, middle)]
        if batch.num_rows < _MANY_ROWS:
            self._settle()
        if batch.num_rows and not isinstance(origin, MessageOrigin):
            LATENCIES.add("write", int((time.perf_counter() - began) * 1e6), batch.num_rows)

    def finish_bundle(self) -> Iterator[Any]:
        self._settle()
        yield from super().finish_bundle()
        for receipt in self._writer.end_bundle():
            yield at_bundle_end(receipt)

    def teardown(self) -> None:
        self._writer.close()
        super().teardown()

    def _write(self, origin: Origin, batch: pa.RecordBatch, numbers: Positions) -> None:
        rows = OutputRows(self._encoded(origin, batch, numbers), batch, origin, numbers, self._key_column)
        if not len(rows):
            return
        answers = self._writer.write(rows)
        if callable(answers):
            self._unanswered = answers, rows
        else:
            self._account_for(rows, answers or {})

    def _take_answers(self) -> None:
        """Waits until the last write is durable or refused."""
        if self._unanswered is not None:
            (answers, rows), self._unanswered = self._unanswered, None
            self._account_for(rows, answers())

    def _settle(self) -> None:
        """Waits until the last element is durable or refused, and notes how long its messages took."""
        if self._element is not None:
            self._take_answers()
            origin, batch = self._element
            if isinstance(origin, MessageOrigin):
                note_total(origin, batch)
            self._element = None

    def _account_for(self, rows: OutputRows, refused: dict[int, str]) -> None:
        """Counts rows that were written, and writes dead letters for those that were refused."""
        for index, reason in refused.items():
            self._reject(rows.origin, rows.batch, index, int(rows.rows[index]), RowRefusedError(reason))
        count = len(rows) - len(refused)
        self._written.inc(count)
        TALLY.add(written=count)

    def _reject(self, origin: Origin, batch: pa.RecordBatch, index: int, row: int, error: Exception) -> None:
        """Writes a dead letter for the row at an index of a batch."""
        message = " ".join(str(error).split())[:500]
        self.reject_row(origin, row, self._key(batch, index), self._writer.stage, type(error).__name__, message)

    def _key(self, batch: pa.RecordBatch, index: int) -> str | None:
        return key_texts(batch[self._key_column].slice(index, 1))[0] if self._key_column else None

    def _as_planned(self, origin: Origin, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Positions]:
        """Returns the rows whose values are the same in the types of the plan; the others are rejected."""
        rows = rows_of(batch)
        planned = ((column.name, column.planned) for column in self._writer.columns if column.planned is not None)
        converted, failures = as_planned(batch, planned)
        for index, message in failures.items():
            key = self._key(batch, index)
            self.reject_row(origin, int(rows[index]), key, "coerce", "CoercionError", message)
        if not failures:
            return converted, rows
        converted, kept = without(converted, failures)
        return converted, rows[kept]

    def _encoded(self, origin: Origin, batch: pa.RecordBatch, rows: Positions) -> pa.RecordBatch:
        """Returns the columns to write, of the types to write."""
        arrays = []
        for column in self._writer.columns:
            named = column.origin == "key" and (self._key_column is None or _takes_names(column.type))
            array = keys_of(self._key_column, origin, batch, rows) if named else batch[column.name]
            arrays.append(to_output(array, column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self._writer.schema)


def _takes_names(type: pa.DataType) -> bool:
    """Tells whether a key column takes the origin's names for rows without a key; in others these have null."""
    return is_text(type) and not pa.types.is_fixed_size_binary(type)
