"""What sinks have in common: the columns to write, and dead letters for rows that cannot be written."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics

from inference.coercion import is_list, list_lengths
from inference.errors import ROW_COLUMN
from inference.sizes import bounded
from pipelines.dead_letters import DeadLetterDoFn
from pipelines.formats.base import FormatError
from pipelines.plan import OutputColumn
from pipelines.progress import TALLY
from pipelines.rows import Origin, Positions

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
      dead_letters: prefix of the dead letters' shards.
      run_id: of this run.
      model: the model as dead letters name it.
    """

    stage = "encode"
    """Of the dead letters."""

    def __init__(
        self, columns: tuple[OutputColumn, ...], key_column: str | None, dead_letters: str, run_id: str, model: str
    ) -> None:
        super().__init__(dead_letters, run_id, model)
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
          RowRefusedError, FormatError, ValueError, pa.ArrowException: a row cannot be written.
        """

    def process(self, element: tuple[Origin, pa.RecordBatch]) -> None:
        origin, batch = element
        rows = rows_of(batch)
        # Encoded in slices: dictionaries are written out, and text may become several times as long.
        sizes = [part.num_rows for part in bounded(batch, ENCODED_BYTES)]
        ends = np.cumsum(sizes).tolist()
        pending = list(zip([0, *ends[:-1]], ends, strict=True))[::-1]
        while pending:
            low, high = pending.pop()
            try:
                self.write(self._encoded(origin, batch.slice(low, high - low), rows[low:high]), origin, rows[low:high])
            except (pa.ArrowException, FormatError, ValueError, UnicodeError) as error:
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
        """A row, at an index of a batch, that cannot be written."""
        key = batch[self._key_column][index].as_py() if self._key_column else None
        message = " ".join(str(error).split())[:500]
        self.reject_row(origin, row, None if key is None else str(key), self.stage, type(error).__name__, message)

    def _encoded(self, origin: Origin, batch: pa.RecordBatch, rows: Positions) -> pa.RecordBatch:
        """The columns to write, of the types to write."""
        arrays = []
        for column in self._columns:
            array = keys_of(self._key_column, origin, batch, rows) if column.origin == "key" else batch[column.name]
            arrays.append(to_output(array, column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


def rows_of(batch: pa.RecordBatch) -> Positions:
    """Which rows of their origin those of a batch are."""
    if ROW_COLUMN not in batch.schema.names:
        return np.arange(batch.num_rows, dtype=np.int64)
    found: Positions = batch[ROW_COLUMN].to_numpy()
    return found


def keys_of(key_column: str | None, origin: Origin, batch: pa.RecordBatch, rows: Positions) -> pa.Array:
    """The key column of a batch; where it is missing, and where there is none, the origin's names of its rows."""
    given = batch[key_column] if key_column else None
    if given is not None and not given.null_count:
        return given
    named = origin.names(rows)
    return named if given is None else pc.coalesce(to_output(given, pa.string()), named)


def to_output(array: pa.Array, type: pa.DataType) -> pa.Array:
    """An array as the type that its column has in the file; nested values become JSON text where it is text."""
    if array.type == type:
        return array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_string(type) and pa.types.is_nested(array.type):
        return _json_text(array)
    if array.type == type:
        return array
    return array.cast(type)


def _json_text(array: pa.Array) -> pa.Array:
    """Nested values as JSON text, in which NaN and infinities are null, as JSON has none.

    Lists of numbers, by far the most frequent, without touching a row.
    """
    if is_list(array.type) and (
        pa.types.is_integer(array.type.value_type) or pa.types.is_floating(array.type.value_type)
    ):
        values = array.flatten()
        if pa.types.is_floating(values.type):
            finite = pc.is_finite(values.cast(pa.float64()))
            values = pc.if_else(finite, values, pa.scalar(None, values.type))
        text = pc.fill_null(values.cast(pa.string()), "null")
        offsets = np.zeros(len(array) + 1, np.int32)
        np.cumsum(list_lengths(array), out=offsets[1:])
        mask = array.is_null() if array.null_count else None
        lists = pa.ListArray.from_arrays(pa.array(offsets), text, mask=mask)
        return pc.binary_join_element_wise("[", pc.binary_join(lists, ", "), "]", "")
    return pa.array(
        [None if v is None else json.dumps(_finite(v), default=str) for v in array.to_pylist()], pa.string()
    )


def _finite(value: Any) -> Any:
    """A nested value without NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return list(map(_finite, value)) if isinstance(value, (list, tuple)) else value
