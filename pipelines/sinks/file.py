"""Record batches -> files. Exactly once: shards are published whole, by the one attempt that the runner commits.

Each bundle writes one shard under a temporary name; `pipelines.publish` gives it its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics

from inference.coercion import is_list, list_lengths
from inference.errors import ROW_COLUMN
from pipelines import files, shards
from pipelines.accounting import OUTPUT, ShardWritten
from pipelines.dead_letters import DeadLetterDoFn, at_bundle_end
from pipelines.formats.base import FormatError, Writer
from pipelines.plan import OutputColumn
from pipelines.progress import TALLY
from pipelines.rows import Origin, Positions


class WriteShards(DeadLetterDoFn):
    """(Origin, record batch) -> receipts of the shards; what cannot be encoded goes to the dead letters.

    Args:
      writer: of the output's format.
      columns: what to write.
      key_column: the source column that is the key, if there is one.
      options: the format's own settings.
      output: prefix of the shards.
      dead_letters: prefix of the dead letters' shards.
      run_id: of this run.
      model: the model as dead letters name it.
    """

    def __init__(
        self,
        writer: type[Writer],
        columns: tuple[OutputColumn, ...],
        key_column: str | None,
        options: Mapping[str, Any],
        output: str,
        dead_letters: str,
        run_id: str,
        model: str,
    ) -> None:
        super().__init__(dead_letters, run_id, model)
        self._make_writer = writer
        self._columns = columns
        self._schema = pa.schema([(column.name, column.type) for column in columns])
        self._key_column = key_column
        self._options = dict(options)
        self._output = output
        self._written = Metrics.counter("predict", "rows_written")

    def start_bundle(self) -> None:
        super().start_bundle()
        self._file: IO[bytes] | None = None
        self._path = ""
        self._rows = 0

    def _open(self) -> Writer:
        self._path = shards.temporary_path(self._output, self._run_id, self._make_writer.extension)
        self._file = files.open_output(self._path)
        self._writer = self._make_writer(self._file, self._schema, self._options)
        return self._writer

    def process(self, element: tuple[Origin, pa.RecordBatch]) -> None:
        origin, batch = element
        rows: Positions = (
            batch[ROW_COLUMN].to_numpy()
            if ROW_COLUMN in batch.schema.names
            else np.arange(batch.num_rows, dtype=np.int64)
        )
        writer = self._writer if self._file is not None else self._open()
        pending = [(0, batch.num_rows)]
        while pending:
            low, high = pending.pop()
            try:
                encoded = self._encoded(origin, batch.slice(low, high - low), rows[low:high])
                writer.write(encoded)
            except (pa.ArrowException, FormatError, ValueError, UnicodeError) as error:
                if high - low == 1:
                    self._reject(origin, batch, low, int(rows[low]), error)
                else:
                    middle = (low + high) // 2
                    pending += [(middle, high), (low, middle)]
                continue
            self._rows += high - low
            self._written.inc(high - low)
            TALLY.add(written=high - low)

    def _reject(self, origin: Origin, batch: pa.RecordBatch, index: int, row: int, error: Exception) -> None:
        key = batch[self._key_column][index].as_py() if self._key_column else None
        message = " ".join(str(error).split())[:500]
        self.reject_row(origin, row, None if key is None else str(key), "encode", type(error).__name__, message)

    def _encoded(self, origin: Origin, batch: pa.RecordBatch, rows: Positions) -> pa.RecordBatch:
        """The columns to write, of the types to write."""
        arrays = []
        for column in self._columns:
            array = self._keys(origin, batch, rows) if column.origin == "key" else batch[column.name]
            arrays.append(to_output(array, column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _keys(self, origin: Origin, batch: pa.RecordBatch, rows: Positions) -> pa.Array:
        """The key column; where it is missing, and where there is none, the origin's names."""
        given = batch[self._key_column] if self._key_column else None
        if given is not None and not given.null_count:
            return given
        named = origin.names(rows)
        return named if given is None else pc.coalesce(to_output(given, pa.string()), named)

    def finish_bundle(self) -> Iterator[Any]:
        yield from super().finish_bundle()
        if self._file is not None:
            self._writer.close()
            self._file.close()
            self._file = None
            yield at_bundle_end(ShardWritten(OUTPUT, self._path, self._rows))


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
    """Nested values as JSON text. Lists of numbers, by far the most frequent, without touching a row."""
    if is_list(array.type) and (
        pa.types.is_integer(array.type.value_type) or pa.types.is_floating(array.type.value_type)
    ):
        values = array.flatten()
        text = pc.fill_null(values.cast(pa.string()), "null")
        offsets = np.zeros(len(array) + 1, np.int32)
        np.cumsum(list_lengths(array), out=offsets[1:])
        mask = array.is_null() if array.null_count else None
        lists = pa.ListArray.from_arrays(pa.array(offsets), text, mask=mask)
        return pc.binary_join_element_wise("[", pc.binary_join(lists, ", "), "]", "")
    return pa.array([None if v is None else json.dumps(v, default=str) for v in array.to_pylist()], pa.string())
