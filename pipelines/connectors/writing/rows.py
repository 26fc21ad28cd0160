"""What sinks have in common: the columns to write, and dead letters for rows that cannot be written."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics

from inference.columns.coercion import is_text
from inference.columns.exact import coerce_exactly
from inference.marks import rows_of
from inference.sizes import bounded
from pipelines.connectors.writing.columns import keys_of
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.dead_letters.step import DeadLetterDoFn
from pipelines.formats.output_values import key_texts, to_output
from pipelines.plan import OutputColumn
from pipelines.rows.origin import Origin, Positions
from pipelines.telemetry.tally import TALLY

ENCODED_BYTES = 64 << 20
"""Decoded bytes of rows that are encoded together."""


class RowRefusedError(ValueError):
    """The rows cannot be written, however often that is tried: at least one of them is at fault."""


class WriteRows(DeadLetterDoFn):
    """(Origin, record batch) -> what `write` does with the columns to write.

    What `write` refuses is halved until the row that is at fault stands alone; that one goes to the dead letters.

    Args:
      columns: what to write.
      key_column: the source column that is the key, if there is one.
      dead_letters: where they go.
      model: the model as dead letters name it.
    """

    stage = "encode"
    """Of the dead letters."""

    def __init__(
        self, columns: tuple[OutputColumn, ...], key_column: str | None, dead_letters: DeadLetterPlace, model: str
    ) -> None:
        super().__init__(dead_letters, model)
        self._columns = columns
        self._schema = pa.schema([(column.name, column.type) for column in columns])
        self._key_column = key_column
        self._written = Metrics.counter("predict", "rows_written")

    @abstractmethod
    def write(self, encoded: pa.RecordBatch, origin: Origin, rows: Positions) -> None:
        """Writes rows, all or none.

        Args:
          encoded: the columns to write, of the types to write.
          origin: where the rows come from.
          rows: which rows of the origin they are.

        Raises:
          ValueError (RowRefusedError, FormatError), ArithmeticError, pa.ArrowException: a row cannot be written.
        """

    def process(self, element: tuple[Origin, pa.RecordBatch]) -> None:
        origin, batch = element
        batch, rows = self._as_planned(origin, batch)
        # Encoded in slices: dictionaries are written out, and text may become several times as long.
        sizes = [part.num_rows for part in bounded(batch, ENCODED_BYTES)]
        ends = np.cumsum(sizes).tolist()
        pending = list(zip([0, *ends[:-1]], ends, strict=True))[::-1]
        while pending:
            low, high = pending.pop()
            try:
                self.write(self._encoded(origin, batch.slice(low, high - low), rows[low:high]), origin, rows[low:high])
            except (pa.ArrowException, ValueError, ArithmeticError) as error:
                if high - low == 1:
                    self.reject(origin, batch, low, int(rows[low]), error)
                else:
                    middle = (low + high) // 2
                    pending += [(middle, high), (low, middle)]
                continue
            self.wrote(high - low)

    def wrote(self, rows: int) -> None:
        """Counts rows that `write` has taken."""
        self._written.inc(rows)
        TALLY.add(written=rows)

    def reject(self, origin: Origin, batch: pa.RecordBatch, index: int, row: int, error: Exception) -> None:
        """Writes a dead letter for a row, at an index of a batch, that cannot be written."""
        message = " ".join(str(error).split())[:500]
        self.reject_row(origin, row, self._key(batch, index), self.stage, type(error).__name__, message)

    def _key(self, batch: pa.RecordBatch, index: int) -> str | None:
        return key_texts(batch[self._key_column].slice(index, 1))[0] if self._key_column else None

    def _as_planned(self, origin: Origin, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Positions]:
        """Returns the rows whose values are the same in the types of the plan; the others are rejected."""
        rows = rows_of(batch)
        changed: dict[str, pa.Array] = {}
        failures: dict[int, str] = {}
        for column in self._columns:
            if column.planned is None or _alike(batch[column.name].type, column.planned):
                continue
            changed[column.name], messages = coerce_exactly(batch[column.name], column.planned)
            for index, message in messages.items():
                failures.setdefault(index, f"column '{column.name}': {message}; write it as a type that holds both")
        for index, message in sorted(failures.items()):
            key = self._key(batch, index)
            self.reject_row(origin, int(rows[index]), key, "coerce", "CoercionError", message)
        for name, array in changed.items():
            batch = batch.set_column(batch.schema.get_field_index(name), name, array)
        if failures:
            kept = np.setdiff1d(np.arange(batch.num_rows, dtype=np.int64), np.fromiter(failures, np.int64))
            batch, rows = batch.take(pa.array(kept)), rows[kept]
        return batch, rows

    def _encoded(self, origin: Origin, batch: pa.RecordBatch, rows: Positions) -> pa.RecordBatch:
        """Returns the columns to write, of the types to write."""
        arrays = []
        for column in self._columns:
            named = column.origin == "key" and (self._key_column is None or _takes_names(column.type))
            array = keys_of(self._key_column, origin, batch, rows) if named else batch[column.name]
            arrays.append(to_output(array, column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


def _takes_names(type: pa.DataType) -> bool:
    """Tells whether a key column takes the origin's names for rows without a key; in others these have null."""
    return is_text(type) and not pa.types.is_fixed_size_binary(type)


def _alike(type: pa.DataType, planned: pa.DataType) -> bool:
    """Tells whether two types are the same but for dictionaries."""
    one, other = (t.value_type if pa.types.is_dictionary(t) else t for t in (type, planned))
    return bool(one == other)
