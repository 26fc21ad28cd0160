"""Record batches -> files. Exactly once: shards are published whole, by the one attempt that the runner commits.

Each bundle writes one shard under a temporary name; `pipelines.connectors.files.publishing` gives it its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

import pyarrow as pa

from pipelines import storage
from pipelines.connectors.files.publishing import shards
from pipelines.connectors.writing.rows import WriteRows
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.dead_letters.step import at_bundle_end
from pipelines.formats.base import Writer
from pipelines.plan import OutputColumn
from pipelines.rows.origin import Origin, Positions
from pipelines.telemetry.accounting import OUTPUT, ShardWritten
from pipelines.telemetry.constant_outputs import ConstantOutputs


class WriteShards(WriteRows):
    """(Origin, record batch) -> receipts of the shards; what cannot be encoded goes to the dead letters.

    Args:
      writer: of the output's format.
      columns: what to write.
      key_column: the source column that is the key, if there is one.
      options: the format's own settings.
      output: prefix of the shards.
      run_id: of this run.
      dead_letters: where they go.
      model: the model as dead letters name it.
    """

    def __init__(
        self,
        writer: type[Writer],
        columns: tuple[OutputColumn, ...],
        key_column: str | None,
        options: Mapping[str, Any],
        output: str,
        run_id: str,
        dead_letters: DeadLetterPlace,
        model: str,
    ) -> None:
        super().__init__(columns, key_column, dead_letters, model)
        self._run_id = run_id
        self._make_writer = writer
        self._options = dict(options)
        self._output = output
        self._outputs = tuple(column.name for column in columns if column.origin == "model")

    def setup(self) -> None:
        self._constants = ConstantOutputs(self._outputs)

    def process(self, element: tuple[Origin, pa.RecordBatch]) -> None:
        self._constants.look(element[1])
        super().process(element)

    def start_bundle(self) -> None:
        super().start_bundle()
        self._file: IO[bytes] | None = None
        self._path = ""
        self._rows = 0

    def _open(self) -> Writer:
        self._path = shards.temporary_path(self._output, self._run_id, self._make_writer.extension)
        self._file = shards.create(self._path)
        self._writer = self._make_writer(self._file, self._schema, self._options)
        return self._writer

    def write(self, encoded: pa.RecordBatch, origin: Origin, rows: Positions) -> None:
        writer = self._writer if self._file is not None else self._open()
        writer.write(encoded)
        self._rows += encoded.num_rows

    def finish_bundle(self) -> Iterator[Any]:
        yield from super().finish_bundle()
        if self._file is not None:
            self._writer.close()
            size = storage.close_durably(self._file)
            self._file = None
            yield at_bundle_end(ShardWritten(OUTPUT, self._path, self._rows, size, self._constants.found()))
