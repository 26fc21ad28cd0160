"""Writes record batches to files. Exactly once: shards are published whole, by the attempt that the runner commits.

Each bundle writes one shard under a temporary name; `pipelines.connectors.files.publishing` gives it its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

from pipelines import storage
from pipelines.connectors.files.encoded_writer import EncodedWriter
from pipelines.connectors.files.publishing import shards
from pipelines.connectors.writing.row_writer import OutputRows
from pipelines.formats.base import Writer
from pipelines.plan import OutputColumn
from pipelines.telemetry.accounting import OUTPUT, ShardWritten
from pipelines.telemetry.constant_outputs import ConstantOutputs


class ShardWriter(EncodedWriter):
    """Writes the rows of each bundle to a shard of its own.

    Args:
      format: the writer of the output's format.
      columns: the columns to write.
      options: the format's own settings.
      output: prefix of the shards.
      run_id: names the run that they belong to.
    """

    def __init__(
        self,
        format: type[Writer],
        columns: tuple[OutputColumn, ...],
        options: Mapping[str, Any],
        output: str,
        run_id: str,
    ) -> None:
        super().__init__(format, columns, options, output)
        self._run_id = run_id

    def open(self) -> None:
        self._constants = ConstantOutputs(tuple(each.name for each in self.columns if each.origin == "model"))

    def begin_bundle(self) -> None:
        self._file: IO[bytes] | None = None
        self._path = ""
        self._rows = 0

    def write(self, rows: OutputRows) -> None:
        if self._file is None:
            self._path = shards.temporary_path(self._output, self._run_id, self._format.extension)
            self._file = shards.create(self._path)
            self._begin_file(self._file)
        self._writer.write(rows.encoded)
        self._rows += len(rows)
        self._constants.look(rows.batch)

    def end_bundle(self) -> Iterator[ShardWritten]:
        if self._file is not None:
            self._writer.close()
            size = storage.close_durably(self._file)
            self._file = None
            yield ShardWritten(OUTPUT, self._path, self._rows, size, constants=self._constants.found())
