"""Writes record batches to files, in a pipeline of one's own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindows

from inference.coders import typed
from pipelines import storage
from pipelines.config.files import FileOutput
from pipelines.connectors.files.publishing import commit, manifest, shards
from pipelines.connectors.files.publishing.place import Place
from pipelines.connectors.files.publishing.reservation import held_to_publish, in_the_way
from pipelines.connectors.files.publishing.step import Publish, PublishTarget
from pipelines.connectors.files.sink import ShardWriter
from pipelines.connectors.writing.rows import WriteRows
from pipelines.dead_letters.step import RECEIPTS, at_bundle_end
from pipelines.formats import FormatError, Writer, writer_class
from pipelines.io.arguments import WantedColumns, as_error, checked, names_of, unknown
from pipelines.io.failures import Refused
from pipelines.plan import OutputColumn
from pipelines.rows.coders import Rows
from pipelines.rows.origin import Origin, Positions
from pipelines.telemetry.accounting import FilePlanned, PieceRead

_NAME = "WriteRecordBatches"


class WriteRecordBatches(beam.PTransform):  # type: ignore[misc]  # Beam's classes are untyped
    """Writes record batches to files, as a batch run writes its output: in shards, all of them published at once.

    Shards are written under temporary names. When all rows are in them they get their names,
    `<path>-00000-of-0000N.<format>`, and take the place of those that an earlier run wrote to this path. If the
    pipeline fails before, nothing has changed; a row that the format cannot hold fails it. One run at a time may write
    to a path.

    Gives the paths of the published files, when they are there.

    Args:
      path: prefix of the files, local or on any Beam file system; a folder if it ends in a slash.
      format: csv, json (an object a line), parquet, avro or tfrecord.
      columns: which columns to write, by their names or with their types, in this order; None for all. Without types,
        the first batch says what they are; then an input without any batch gives no file.
      delimiter: of CSV; a comma by default.

    Raises:
      ValueError: an argument is wrong, or files are in the way that no earlier run has written; when the transform is
        made or applied, before anything runs.

    >>> import tempfile
    >>> import apache_beam as beam
    >>> import pyarrow as pa
    >>> from pipelines.io import WriteRecordBatches
    >>> batch = pa.record_batch({"id": ["a", "b"], "weight": [7.5, 6.25]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with beam.Pipeline(runner="FnApiRunner") as p:
    ...         _ = p | beam.Create([batch]) | WriteRecordBatches(f"{folder}/weights", "csv")
    ...     print(open(f"{folder}/weights-00000-of-00001.csv").read())
    id,weight
    a,7.5
    b,6.25
    <BLANKLINE>
    """

    def __init__(
        self, path: str | os.PathLike[str], format: str, *, columns: WantedColumns = None, delimiter: str | None = None
    ) -> None:
        super().__init__()
        self._names = names_of(columns)
        self._output = checked(FileOutput, {"path": os.fspath(path), "format": format, "delimiter": delimiter})
        self._writer = writer_class(self._output.format)
        self._columns = columns_to_write(columns, None, self._writer) if isinstance(columns, pa.Schema) else ()

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        if not batches.is_bounded:
            raise ValueError(f"{_NAME} publishes its files when all rows are written, and a stream has no end")
        place = Place("path", self._output.path, self._writer.extension)
        # What a stopped run left half published is completed when this one publishes.
        if commit.find(place.prefix) is None and (problems := in_the_way(place)):
            raise as_error(problems)
        run = uuid.uuid4().hex[:8]
        options = {"delimiter": self._output.delimiter} if self._output.delimiter else {}
        if not batches.windowing.is_default():
            batches = batches | "AtOnce" >> beam.WindowInto(GlobalWindows())
        taken = batches | "Take" >> beam.ParDo(_Take()).with_outputs(RECEIPTS, main="rows")
        to_shards = _BatchShards(self._writer, self._columns, options, place.prefix, run, names=self._names)
        write = beam.ParDo(_WriteBatches(to_shards)).with_outputs(RECEIPTS, main="shards")
        written = typed(taken.rows, Rows) | "Write" >> write
        receipts = (taken[RECEIPTS], written.shards, written[RECEIPTS]) | beam.Flatten()
        target = PublishTarget(run, _NAME, place.prefix, place.prefix, None)
        publish = _PublishBatches(target, place, self._writer, self._columns, options)
        published = (
            batches.pipeline
            | "End" >> beam.Create([None])
            | "Publish" >> beam.ParDo(publish, beam.pvalue.AsList(receipts))
        )
        return typed(published, str)


def columns_to_write(schema: pa.Schema, names: list[str] | None, writer: type[Writer]) -> tuple[OutputColumn, ...]:
    """Returns columns of a schema with the types that they have in files.

    Args:
      schema: of the batches.
      names: which columns; None for all.
      writer: of the files' format.

    Raises:
      ValueError: there is no such column, or the format cannot hold its type.
    """
    problems = unknown("columns", names or (), schema.names, "a batch has")
    columns = []
    for name in names or schema.names:
        if name not in schema.names:
            continue
        type = schema.field(name).type
        try:
            columns.append(OutputColumn(name, writer.output_type(type), "source", planned=type))
        except FormatError as error:
            problems.append(f"columns: '{name}': {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(columns)


def _schema(columns: tuple[OutputColumn, ...]) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in columns])


class _Unnamed(Origin):
    """Stands for rows that come from another step of a pipeline.

    Args:
      rows: how many.
    """

    file = "record batch"
    format: dict[str, Any] = {}

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def positions(self) -> Positions:
        return np.arange(self._rows, dtype=np.int64)

    def payload(self, row: int) -> bytes:
        return b""

    def source(self, row: int) -> str:
        return f"row {row} of a record batch"


class _Take(beam.DoFn):  # type: ignore[misc]
    """Makes (Origin, record batch) of record batches; counts the rows for the account."""

    def start_bundle(self) -> None:
        self._rows = 0

    def process(self, batch: pa.RecordBatch) -> Iterator[tuple[Origin, pa.RecordBatch]]:
        if not isinstance(batch, pa.RecordBatch):
            raise TypeError(f"{_NAME} takes pyarrow.RecordBatch, not {type(batch).__name__}")
        self._rows += batch.num_rows
        yield _Unnamed(batch.num_rows), batch

    def finish_bundle(self) -> Iterator[Any]:
        bundle, piece = uuid.uuid4().hex, (0, self._rows)
        for receipt in (FilePlanned(bundle, (piece,)), PieceRead(bundle, piece, self._rows)):
            yield beam.pvalue.TaggedOutput(RECEIPTS, at_bundle_end(receipt))


@dataclass(frozen=True)
class _WrittenAs:
    """Tells which columns a worker has written; a receipt.

    Attributes:
      schema: of the files.
    """

    schema: pa.Schema


class _BatchShards(ShardWriter):
    """Writes as ShardWriter does; if the columns are not known before, the first batch says what they are.

    Args:
      names: which columns to write, if there are no types; None for all.
    """

    def __init__(self, *arguments: Any, names: list[str] | None) -> None:
        super().__init__(*arguments)
        self._names = names

    def open(self) -> None:
        super().open()
        if not storage.is_remote(self._output):
            os.makedirs(shards.temporary_folder(self._output, self._run_id), 0o700, exist_ok=True)

    def require(self, schema: pa.Schema) -> None:
        """Makes sure that batches of a schema can be written. Raises ValueError."""
        if not self.columns:
            self.columns = columns_to_write(schema, self._names, self._format)
        if missing := unknown("columns", [column.name for column in self.columns], schema.names, "a batch has"):
            raise ValueError(missing[0])


class _WriteBatches(WriteRows):
    """Writes as WriteRows does; a row that cannot be written fails the pipeline."""

    def __init__(self, writer: _BatchShards) -> None:
        refused = Refused(f"{_NAME} has published nothing: leave the row out, or choose another format or other types")
        super().__init__(writer, None, refused, "")
        self._shards = writer

    def process(self, element: tuple[Origin, pa.RecordBatch]) -> None:
        self._shards.require(element[1].schema)
        super().process(element)

    def finish_bundle(self) -> Iterator[Any]:
        yield from super().finish_bundle()
        if self._shards.columns:
            yield beam.pvalue.TaggedOutput(RECEIPTS, at_bundle_end(_WrittenAs(self._shards.schema)))


class _PublishBatches(beam.DoFn):  # type: ignore[misc]
    """Publishes as Publish does, and holds the place meanwhile; gives the paths of the files.

    Args:
      target: what to publish, and where.
      place: the same, for messages.
      writer: of the files' format.
      columns: of the files, if they were known before; else those that were written.
      options: the format's own settings.
    """

    def __init__(
        self,
        target: PublishTarget,
        place: Place,
        writer: type[Writer],
        columns: tuple[OutputColumn, ...],
        options: dict[str, Any],
    ) -> None:
        self._target = target
        self._place = place
        self._writer = writer
        self._schema = _schema(columns) if columns else None
        self._options = options

    def process(self, element: Any, receipts: Iterable[Any]) -> Iterator[str]:
        receipts = list(receipts)
        schemas = list({receipt.schema: None for receipt in receipts if isinstance(receipt, _WrittenAs)})
        if len(schemas) > 1:
            shown = " and ".join(", ".join(f"{field.name} {field.type}" for field in schema) for schema in schemas[:2])
            raise ValueError(f"batches have different columns, ({shown}): give {_NAME} columns=pa.schema(...)")
        schema = self._schema or (schemas[0] if schemas else None)
        publish = Publish(self._target, self._writer, None if schema is None else (schema, self._options))
        account = [receipt for receipt in receipts if not isinstance(receipt, _WrittenAs)]
        target = self._target
        with held_to_publish(self._place, target.run, target.name):
            list(publish.process(element, account))
        folder, _ = shards.split_prefix(target.output)
        found = manifest.read(target.output)
        yield from (folder + shard.name for shard in (found.of_run(target.run) if found else ()))
