"""Makes the input of runs: the first rows of a source, repeated until there are as many as a run is to have."""

from __future__ import annotations

import csv
import io
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines import storage
from pipelines.config.errors import ConfigError
from pipelines.config.files import FileSource
from pipelines.connectors.registry import bounded_source
from pipelines.encodings import charset_of, is_utf16
from pipelines.formats import reader_class
from pipelines.plan import Plan
from pipelines.planning.planner import source_options
from pipelines.rows.origin import Block

MOST_DISTINCT = 100_000
_MOST_BYTES = 256 << 20
"""Of the rows that are repeated."""
MOST_FILES = 20_000
"""Of a source in which each file is a row."""
_TEXT = ("csv", "json", "text")


class Repeated(ABC):
    """Holds the first rows of a source, and writes as many rows as are wanted in the source's format.

    Attributes:
      rows: how many rows it holds.
      changes: what changes in the run's config, beside the path.
    """

    rows: int
    changes: dict[str, Any] = {}

    @abstractmethod
    def write(self, folder: Path, rows: int) -> None:
        """Writes files with so many rows into a folder."""

    @abstractmethod
    def bytes_of(self, rows: int) -> int:
        """Returns how many bytes files with so many rows have, about."""

    def has_unique(self, plan: Plan, column: str) -> bool:
        """Tells whether each of the rows has another value in a column."""
        values = 0
        seen: set[Any] = set()
        for _, piece in bounded_source(plan.config.source).sample(plan, self.rows):
            if isinstance(piece, Block) and column in piece.batch.schema.names:
                part = piece.batch[column].slice(0, self.rows - values)
                seen.update(part.to_pylist())
                values += len(part)
            if values >= self.rows:
                break
        return len(seen) == values


def source_of(plan: Plan, folder: Path, rows: int, repeated: Repeated) -> dict[str, Any]:
    """Writes input for a run, once for each number of rows; returns the changes of the run's config that read it.

    Args:
      plan: of the run that the comparison is based on.
      folder: where inputs are kept.
      rows: how many rows the run is to have.
      repeated: the rows.
    """
    place = _place(folder, rows)
    if not place.exists():
        unfinished = folder / f"unfinished-{rows}"
        shutil.rmtree(unfinished, ignore_errors=True)
        named = unfinished.joinpath(*(f"{name}={value}" for name, value in plan.files[0].partition))
        named.mkdir(parents=True)
        repeated.write(named, rows)
        unfinished.rename(place)
    return {"source.path": f"{place.resolve()}{os.sep}", **repeated.changes}


def room_needed(folder: Path, sizes: Iterable[int], repeated: Repeated) -> int:
    """Returns how many bytes the inputs that are not there yet will have, about.

    Args:
      folder: where inputs are kept.
      sizes: rows of each input.
      repeated: the rows.
    """
    return sum(repeated.bytes_of(rows) for rows in sizes if not _place(folder, rows).exists())


def _place(folder: Path, rows: int) -> Path:
    return folder / f"rows-{rows}"


def first_rows(plan: Plan, rows: int) -> Repeated:
    """Reads the first rows of a source of files.

    Args:
      plan: of a run whose source is files.
      rows: how many are wanted at most.

    Raises:
      ConfigError: there are none.
    """
    source = plan.config.source
    assert isinstance(source, FileSource)
    wanted = min(rows, MOST_DISTINCT)
    filled = [file for file in plan.files if file.size]
    if not filled:
        raise _no_rows()
    # What tells columns by the names of folders has to stand in one folder here.
    plan = replace(plan, files=tuple(file for file in filled if file.partition == filled[0].partition))
    found: Repeated
    if source.format in _TEXT:
        found = _Lines(plan, source, wanted)
    elif source.format == "tfrecord":
        found = _Records(plan, wanted)
    elif source.format == "bytes":
        found = _Files(plan, wanted)
    elif source.format == "avro":
        found = _AvroRows(plan, wanted)
    else:
        found = _Table(plan, source, wanted)
    if not found.rows:
        raise _no_rows()
    return found


def _no_rows() -> ConfigError:
    return ConfigError(["source: there are no rows to compare ways with; give a source that has some"])


def _payloads(plan: Plan, wanted: int, file: str | None = None) -> Iterator[bytes]:
    """The bytes of the first rows, good or bad, as they stand in the source."""
    given = taken = 0
    for name, piece in bounded_source(plan.config.source).sample(plan, wanted):
        if file is not None and name != file:
            return
        payloads = [piece.payload] if not isinstance(piece, Block) else map(piece.origin.payload, range(piece.rows))
        for payload in payloads:
            yield payload
            given += 1
            taken += len(payload)
            if given >= wanted or taken > _MOST_BYTES:
                return


class _Lines(Repeated):
    """Rows of text: CSV, JSON, lines."""

    def __init__(self, plan: Plan, source: FileSource, wanted: int) -> None:
        charset = charset_of(source.encoding)
        if source.encoding is not None and is_utf16(source.encoding):
            # Readers turn it into UTF-8 before they look for rows.
            self.changes = {"source.encoding": None}
        self._header = b""
        file = None
        if source.format == "csv" and source.column_names is None:
            names = reader_class("csv").schema(plan.files[0].path, source_options(source)).names
            text = io.StringIO()
            quote = source.quote if source.quote is not None else '"'
            quoting: Any = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE, "quotechar": None}
            csv.writer(text, delimiter=source.delimiter or ",", lineterminator="\n", **quoting).writerow(names)
            self._header = text.getvalue().encode(charset or "utf-8")
            others = [other for other in plan.files[1:] if _names(other.path, source) != names]
            # Columns of other files may stand in another order.
            file = plan.files[0].path if others else None
        self._lines = [payload.rstrip(b"\r\n") + b"\n" for payload in _payloads(plan, wanted, file)]
        self.rows = len(self._lines)
        self._name = {"csv": "rows.csv", "json": "rows.jsonl", "text": "rows.txt"}[source.format]

    def write(self, folder: Path, rows: int) -> None:
        whole, rest = divmod(rows, self.rows)
        body = b"".join(self._lines)
        with (folder / self._name).open("wb") as out:
            out.write(self._header)
            for _ in range(whole):
                out.write(body)
            out.write(b"".join(self._lines[:rest]))

    def bytes_of(self, rows: int) -> int:
        return len(self._header) + sum(map(len, self._lines)) * rows // self.rows


def _names(path: str, source: FileSource) -> list[str]:
    return list(reader_class("csv").schema(path, source_options(source)).names)


class _Records(Repeated):
    """Records of TFRecord files."""

    def __init__(self, plan: Plan, wanted: int) -> None:
        self._records = list(_payloads(plan, wanted))
        self.rows = len(self._records)

    def write(self, folder: Path, rows: int) -> None:
        from pipelines.formats.tfrecord.frames import frame

        whole, rest = divmod(rows, self.rows)
        body = frame(pa.array(self._records, pa.large_binary()))
        with (folder / "rows.tfrecord").open("wb") as out:
            for _ in range(whole):
                out.write(body)
            out.write(frame(pa.array(self._records[:rest], pa.large_binary())))

    def bytes_of(self, rows: int) -> int:
        from pipelines.formats.tfrecord.frames import FRAME_BYTES

        return (sum(map(len, self._records)) + FRAME_BYTES * self.rows) * rows // self.rows


class _Files(Repeated):
    """Files that are a row each, such as images."""

    def __init__(self, plan: Plan, wanted: int) -> None:
        self._files = [file.path for file in plan.files[:wanted]]
        self._bytes = sum(file.size for file in plan.files[:wanted])
        self.rows = len(self._files)

    def write(self, folder: Path, rows: int) -> None:
        for number in range(rows):
            path = self._files[number % self.rows]
            target = folder / f"{number:07}{os.path.splitext(path)[1]}"
            with storage.open_input(path) as content, target.open("wb") as out:
                shutil.copyfileobj(content, out)

    def bytes_of(self, rows: int) -> int:
        return self._bytes * rows // self.rows


class _AvroRows(Repeated):
    """Rows of an Avro file."""

    def __init__(self, plan: Plan, wanted: int) -> None:
        import fastavro

        with storage.open_input(plan.files[0].path) as file:
            reader = fastavro.reader(file)
            self._schema: Any = reader.writer_schema
            self._records = [record for record, _ in zip(reader, range(wanted), strict=False)]
        self.rows = len(self._records)

    def write(self, folder: Path, rows: int) -> None:
        import fastavro

        whole, rest = divmod(rows, self.rows)
        # An empty file is the header alone; behind it, the blocks of the same marker may be repeated.
        marker = bytes(range(16))
        header, document, last = (
            _avro(fastavro, self._schema, records, marker) for records in ([], self._records, self._records[:rest])
        )
        with (folder / "rows.avro").open("wb") as out:
            out.write(header)
            for _ in range(whole):
                out.write(document[len(header) :])
            out.write(last[len(header) :])

    def bytes_of(self, rows: int) -> int:
        import fastavro

        header, document = (len(_avro(fastavro, self._schema, records, bytes(16))) for records in ([], self._records))
        return header + (document - header) * rows // self.rows


def _avro(fastavro: Any, schema: Any, records: list[Any], marker: bytes) -> bytes:
    out = io.BytesIO()
    fastavro.writer(out, schema, records, codec="deflate", sync_marker=marker)
    return out.getvalue()


class _Table(Repeated):
    """Rows of a format whose files end with a table of contents: Parquet, ORC."""

    def __init__(self, plan: Plan, source: FileSource, wanted: int) -> None:
        batch = reader_class(source.reads).sample(plan.files[0].path, source_options(source), wanted)
        self._table = pa.Table.from_batches([batch])
        self._format = source.format
        self.rows = batch.num_rows

    def write(self, folder: Path, rows: int) -> None:
        whole, rest = divmod(rows, self.rows)
        tables = [self._table] * whole + ([self._table.slice(0, rest)] if rest else [])
        self._write(tables, str(folder / f"rows.{self._format}"))

    def bytes_of(self, rows: int) -> int:
        first, both = (self._bytes_written([self._table] * times) for times in (1, 2))
        return max(0, first + (both - first) * (rows - self.rows) // self.rows)

    def _bytes_written(self, tables: list[pa.Table]) -> int:
        out = pa.BufferOutputStream()
        self._write(tables, out)
        return int(out.getvalue().size)

    def _write(self, tables: list[pa.Table], to: Any) -> None:
        if self._format == "orc":
            from pyarrow import orc

            with orc.ORCWriter(to, compression="zstd") as orc_writer:
                for table in tables:
                    orc_writer.write(table)
            return
        from pyarrow import parquet

        with parquet.ParquetWriter(to, self._table.schema) as writer:
            for table in tables:
                writer.write_table(table)
