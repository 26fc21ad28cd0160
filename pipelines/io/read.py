"""Reads files as record batches, in a pipeline of one's own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam import pvalue

from inference.coders import typed
from pipelines.config.files import FileSource
from pipelines.connectors.files.source import ReadFiles
from pipelines.connectors.writing.planned_types import as_planned, without
from pipelines.dead_letters.limit import DeadLetterLimit
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.dead_letters.step import RECEIPTS, DeadLetterDoFn
from pipelines.formats import ReadSpec, detection, reader_class
from pipelines.formats.output_values import key_texts
from pipelines.io.arguments import WantedColumns, as_error, checked, names_of, unknown
from pipelines.io.failures import HandedOn, Refused
from pipelines.planning.decoded_types import written_type
from pipelines.planning.planner import look_at_source, source_options, unknown_key
from pipelines.planning.source_columns import Columns
from pipelines.rows.origin import DeadLetter, Origin

_LOG = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]


class ReadRecordBatches(beam.PTransform):  # type: ignore[misc]  # Beam's classes are untyped
    """Reads files as Arrow record batches, as a batch run reads its source: in pieces, by all workers, in columns.

    Every batch has the same columns of the same types. CSV has no types: its columns are text, which handlers of models
    convert, unless `columns` gives a type. The types of the other formats are those of the files; where files differ,
    those that hold the values of all.

    As it is, a row that cannot be decoded fails the pipeline. With `with_exception_handling()` the result is a pair, as
    in Beam: the batches of the other rows, and a PCollection of `DeadLetter`, which have the original bytes of a row
    and say what is wrong with it.

    Args:
      path: a path, a glob, a folder, or a list of them, local or on any Beam file system.
      format: csv, json (an object a line), parquet, avro, orc, tfrecord, text (a row a line) or bytes (a row a file);
        None for what the first file's name says.
      columns: which columns to read, by their names or with their types, in this order; None for all.
      key: column that identifies a row, by which dead letters name it; None for <file>:<offset>.
      delimiter: of CSV; a comma by default.
      quote: of CSV; " by default, "" for none.
      encoding: of CSV, JSON and text; UTF-8 by default.
      trim: of CSV: spaces around fields mean nothing.
      decimal: of CSV: what stands in the numbers of columns that have a type; a point by default.
      null_values: of CSV: texts that mean a missing value; the empty one by default.
      column_names: of CSV without a header line.
      record: of TFRecord: example, the default, or raw.

    Raises:
      ValueError: an argument is wrong, no file matches, or the files do not have what is asked for; when the transform
        is made or applied, before anything runs.

    >>> import apache_beam as beam
    >>> from model import packaged
    >>> from pipelines.io import ReadRecordBatches
    >>> births = ReadRecordBatches(packaged.find("data/births-*.csv"), columns=["source_id", "plurality"])
    >>> with beam.Pipeline(runner="FnApiRunner") as p:
    ...     _ = p | births | beam.Map(lambda batch: print(batch.num_rows, batch.schema.names))
    1450 ['source_id', 'plurality']
    """

    def __init__(
        self,
        path: PathLike | Sequence[PathLike],
        format: str | None = None,
        *,
        columns: WantedColumns = None,
        key: str | None = None,
        delimiter: str | None = None,
        quote: str | None = None,
        encoding: str | None = None,
        trim: bool | None = None,
        decimal: str | None = None,
        null_values: Sequence[str] | None = None,
        column_names: Sequence[str] | None = None,
        record: str | None = None,
    ) -> None:
        super().__init__()
        paths = _paths(path)
        self._columns = columns
        self._names = names_of(columns)
        self._separates = False
        self._source = checked(
            FileSource,
            {
                "path": paths,
                "format": format or _format_of(paths[0]),
                "key": key,
                "delimiter": delimiter,
                "quote": quote,
                "encoding": encoding,
                "trim": trim,
                "decimal": decimal,
                "null_values": None if null_values is None else list(null_values),
                "column_names": None if column_names is None else list(column_names),
                "record": record,
            },
        )

    def with_exception_handling(self) -> ReadRecordBatches:
        """Gives the dead letters as a second PCollection, instead of failing the pipeline."""
        self._separates = True
        return self

    def expand(self, pbegin: pvalue.PBegin) -> Any:
        problems: list[str] = []
        files, columns, notes = look_at_source(self._source, problems, offline=False)
        if not problems and columns.schema:
            there = columns.schema.names
            problems += unknown_key(self._source, columns.schema)
            problems += unknown("columns", self._names or (), there, "the files have")
        if problems:
            raise as_error(problems)
        for note in notes:
            _LOG.warning(note.replace("source.", ""))
        spec = self._spec(columns)
        place: DeadLetterPlace = (
            HandedOn()
            if self._separates
            else Refused("use ReadRecordBatches(...).with_exception_handling() to go on without it")
        )
        limit = DeadLetterLimit(1.0, sum(file.size for file in files))
        reader = reader_class(self._source.reads)(spec)
        rows, (_, receipts) = pbegin | "Files" >> ReadFiles(tuple(files), reader, place, "", limit)
        wanted = pa.schema([spec.columns.field(name) for name in self._names or spec.columns.names])
        read = rows | "Types" >> beam.ParDo(_InTypes(wanted, self._source.key, place)).with_outputs(
            RECEIPTS, main="batches"
        )
        batches = typed(read.batches, pa.RecordBatch)
        if not self._separates:
            return batches
        handed_on = (receipts, read[RECEIPTS]) | beam.Flatten() | "DeadLetters" >> beam.Filter(_is_dead_letter)
        return batches, typed(handed_on, DeadLetter)

    def _spec(self, columns: Columns) -> ReadSpec:
        """Returns what to read: the columns asked for and the key, with the types to decode them to."""
        source, schema = self._source, columns.schema if columns.schema is not None else pa.schema([])
        names = self._names or schema.names
        given = self._columns if isinstance(self._columns, pa.Schema) else pa.schema([])
        fields = []
        for name in [*names, *([source.key] if source.key and source.key not in names else [])]:
            if name in given.names:
                fields.append(pa.field(name, given.field(name).type))
            elif name in schema.names:
                described = "parquet" if name in columns.partitioned else source.reads
                fields.append(
                    pa.field(name, written_type(described, schema.field(name), None, is_key=name == source.key))
                )
        as_they_are = frozenset(field.name for field in fields) - frozenset(given.names)
        return ReadSpec(pa.schema(fields), source_options(source), source.key, as_they_are)


class _InTypes(DeadLetterDoFn):
    """Makes record batches of the columns and types asked for of (Origin, record batch)."""

    def __init__(self, columns: pa.Schema, key: str | None, dead_letters: DeadLetterPlace) -> None:
        super().__init__(dead_letters, "")
        self._columns = columns
        self._key = key

    def process(self, element: tuple[Origin, pa.RecordBatch]) -> Iterator[Any]:
        origin, batch = element
        converted, failures = as_planned(batch, ((field.name, field.type) for field in self._columns))
        for index, message in failures.items():
            key = key_texts(batch[self._key].slice(index, 1))[0] if self._key else None
            self.reject_row(origin, index, key, "coerce", "CoercionError", message)
            yield from self.handed_on()
        if failures:
            converted, _ = without(converted, failures)
        if converted.num_rows:
            arrays = [converted[field.name].cast(field.type) for field in self._columns]
            yield pa.RecordBatch.from_arrays(arrays, schema=self._columns)


def _paths(path: PathLike | Sequence[PathLike]) -> list[str]:
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not given:
        raise ValueError("path: names no file; give a path, a glob, a folder, or a list of them")
    return [os.fspath(each) for each in given]


def _format_of(path: str) -> str:
    found = detection.format_of(path)
    if found is None:
        raise ValueError(f"format: cannot be told from the name {path}; give it, such as format='csv'")
    return found


def _is_dead_letter(element: Any) -> bool:
    return isinstance(element, DeadLetter)
