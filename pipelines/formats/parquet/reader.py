"""Reads Parquet by row groups, on pyarrow."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from inference.sizes import bounded
from pipelines.formats.base import FormatError, Reader, ReadSpec, Split
from pipelines.formats.parquet.size import reading_plan, stored_bytes
from pipelines.formats.parquet.times import FineTimes, int96_columns
from pipelines.formats.readable import readable, readable_schema
from pipelines.formats.table import (
    BATCH_BYTES,
    EXPANDED_BYTES,
    EXPANSION,
    READ_ERRORS,
    RereadOrigin,
    broken_file,
    emit,
    expands,
    grouped,
    is_corrupt,
    lost_rows,
    open_table,
    require_distinct,
    table_size,
    text_bytes,
)
from pipelines.rows.origin import Block, RejectedRow
from pipelines.storage import is_remote, read_range

READ_BUFFER_BYTES = 1 << 20
"""Bytes of a column chunk that are read at a time; without it a whole column chunk is."""


_SAMPLED_ROWS = 1000


@dataclass
class ParquetOrigin(RereadOrigin):
    """Describes rows of one row group.

    Attributes:
      group: number of the row group in the file.
      offset: row number, in the row group, of the first row of the batch.
    """

    group: int = 0
    offset: int = 0

    def reread(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        with _open(self.file, self.content) as file:
            at = -self.offset
            for batch in _batches(file, self.file, self.content, self.group, file.schema_arrow.names, frozenset()):
                if at + batch.num_rows > 0:
                    yield at, batch
                at += batch.num_rows

    def encode(self, row: pa.RecordBatch) -> bytes:
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_batches([row]), sink, compression="NONE", write_statistics=False)
        return sink.getvalue()


class ParquetReader(Reader):
    """Reads the columns wanted, row group by row group, in batches of bounded size."""

    has_own_types = True
    unit = "row groups"

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        """Returns the columns of `file`; none if it has no bytes."""
        return _footer(file)[0]

    @classmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        schema, groups = _footer(file)
        reader = cls(ReadSpec(schema, options))
        for found in reader._read_groups(file, None, 0, groups, rows):
            if isinstance(found, Block):
                return found.batch.slice(0, rows)
        return pa.RecordBatch.from_pylist([], schema=schema)

    def expected_rows(self, file: str, size: int) -> float | None:
        with _open(file, None) as opened:
            return float(opened.metadata.num_rows)

    def splits(self, file: str, size: int, split_bytes: int) -> list[Split]:
        if not size:
            return []
        try:
            with _open(file, None) as opened:
                groups = [opened.metadata.row_group(i) for i in range(opened.num_row_groups)]
                sizes = [stored_bytes(group) for group in groups]
        except READ_ERRORS as error:
            if not is_corrupt(error):
                raise
            return [Split(file, 0, 1, size)]
        return [Split(file, a, b, sum(sizes[a:b])) for a, b in grouped(sizes, split_bytes)]

    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        return self._read_groups(split.file, None, split.start, split.end)

    def replay(self, payload: bytes, context: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        if payload:
            yield from self._read_groups(name, payload, 0, None)

    def _read_groups(
        self, name: str, content: bytes | None, start: int, end: int | None, limit: int | None = None
    ) -> Iterator[Block | RejectedRow]:
        if start == end:
            return
        dictionaries = _dictionaries(self.spec.columns)
        with ExitStack() as stack:
            try:
                file = stack.enter_context(_open(name, content, dictionaries))
                require_distinct(file.schema_arrow.names, name)
                names = _wanted(file, self.spec.columns)
                rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            except READ_ERRORS as error:
                if not is_corrupt(error):
                    raise
                size = table_size(content, name)
                said = str(error).removeprefix(f"{name}: ")
                message = said if isinstance(error, FormatError) else f"not a readable Parquet file: {error}"
                yield broken_file(name, content, size, message)
                return
            first = sum(rows[:start])
            for group in range(start, len(rows) if end is None else min(end, len(rows))):
                yield from self._read_group(file, names, name, content, group, first, limit)
                first += rows[group]

    def _read_group(
        self,
        file: pq.ParquetFile,
        names: list[str],
        name: str,
        content: bytes | None,
        group: int,
        first: int,
        limit: int | None,
    ) -> Iterator[Block | RejectedRow]:
        total = file.metadata.row_group(group).num_rows
        offset, reason = 0, "it has fewer rows than its metadata says"
        try:
            for batch in _batches(file, name, content, group, names, _dictionaries(self.spec.columns), limit):
                origin = ParquetOrigin(name, {"type": "parquet"}, first + offset, batch, None, content, group, offset)
                yield from emit(origin, self.spec)
                offset += batch.num_rows
        except READ_ERRORS as error:
            if not is_corrupt(error):
                raise
            reason = str(error)
        message = f"{name}: row group {group} cannot be read from its row {offset} on: {reason}"
        yield from lost_rows(first + offset, total - offset, message)


@contextmanager
def _open(
    file: str,
    content: bytes | None,
    dictionaries: frozenset[str] = frozenset(),
    metadata: pq.FileMetaData | None = None,
    *,
    fine: bool = False,
) -> Iterator[pq.ParquetFile]:
    options: dict[str, Any] = {
        "buffer_size": READ_BUFFER_BYTES if content is None else 0,
        "pre_buffer": False,
        "page_checksum_verification": True,
        # In nanoseconds, a time before 1677 or after 2262 would be another time.
        "coerce_int96_timestamp_unit": "ns" if fine else "us",
    }
    with open_table(file, content) as source:
        if metadata is not None:
            yield pq.ParquetFile(source, metadata=metadata, read_dictionary=sorted(dictionaries), **options)
            return
        opened = pq.ParquetFile(source, **options)
        schema = opened.schema_arrow
        strings = [n for n in schema.names if n in dictionaries and pa.types.is_string(schema.field(n).type)]
        if strings:
            opened = pq.ParquetFile(source, metadata=opened.metadata, read_dictionary=strings, **options)
        yield opened


def _footer(file: str) -> tuple[pa.Schema, int]:
    """The columns of a file and the number of its row groups."""
    if not table_size(None, file):
        return pa.schema([]), 0
    try:
        with _open(file, None) as opened:
            require_distinct(opened.schema_arrow.names, file)
            return _with_times(file, opened), opened.num_row_groups
    except READ_ERRORS as error:
        if isinstance(error, FormatError) or not is_corrupt(error):
            raise
        raise FormatError(f"{file} is not a readable Parquet file: {error}") from error


def _with_times(file: str, opened: pq.ParquetFile) -> pa.Schema:
    """The columns of a file; times that are INT96 have the unit that the first of them need."""
    schema = readable_schema(opened.schema_arrow)
    int96 = int96_columns(opened.metadata, schema.names)
    if int96 and opened.num_row_groups:
        first = next(_batches(opened, file, None, 0, int96, frozenset(), _SAMPLED_ROWS), None)
        for column in first.schema if first is not None else ():
            schema = schema.set(schema.get_field_index(column.name), column)
    return schema


def _dictionaries(columns: pa.Schema) -> frozenset[str]:
    return frozenset(field.name for field in columns if pa.types.is_dictionary(field.type))


def _wanted(file: pq.ParquetFile, columns: pa.Schema) -> list[str]:
    """The columns to read; without one that is wanted, the smallest: only values prove that there are rows."""
    wanted = set(columns.names)
    names = [name for name in file.schema_arrow.names if name in wanted]
    if names or not file.num_row_groups:
        return names
    group = file.metadata.row_group(0)
    chunks = sorted((group.column(i) for i in range(group.num_columns)), key=lambda chunk: chunk.total_compressed_size)
    tops = [chunk.path_in_schema.split(".", 1)[0] for chunk in chunks]
    return [name for name in tops if name in file.schema_arrow.names][:1]


def _batches(
    file: pq.ParquetFile,
    name: str,
    content: bytes | None,
    group: int,
    names: list[str],
    as_dictionaries: frozenset[str],
    limit: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of a row group in batches of bounded size. Raises READ_ERRORS."""
    metadata = file.metadata.row_group(group)
    if not names and metadata.num_rows:
        raise FormatError("it says that it has rows, and has no columns")
    plan = reading_plan(
        file,
        group,
        names,
        as_dictionaries,
        lambda dictionaries: _open(name, content, dictionaries, file.metadata),
        None if content is not None or is_remote(name) else lambda start, end: read_range(name, start, end),
    )
    rows = max(1, min(plan.rows, limit or plan.rows))
    stored, decoded = stored_bytes(metadata), 0
    with ExitStack() as stack:
        if plan.dictionaries:
            file = stack.enter_context(_open(name, content, as_dictionaries | plan.dictionaries, file.metadata))
        times = None
        if int96 := int96_columns(file.metadata, names):
            fine = stack.enter_context(_open(name, content, metadata=file.metadata, fine=True))
            times = FineTimes(fine.iter_batches(rows, [group], int96))
        for batch in file.iter_batches(rows, [group], names):
            # Made readable first: what a view takes cannot be told.
            batches = times.beside(readable(batch)) if times else [readable(batch)]
            for part in (part for each in batches for part in bounded(each, BATCH_BYTES)):
                decoded += text_bytes(part)
                if expands(decoded, stored):
                    raise FormatError(
                        f"text and lists of {stored:,} bytes become more than {decoded:,}; they may become "
                        f"{EXPANSION} times as much, or {EXPANDED_BYTES:,} bytes: write it with smaller row groups"
                    )
                yield _written_out(part, plan.dictionaries) if plan.dictionaries else part


def _written_out(batch: pa.RecordBatch, names: frozenset[str]) -> pa.RecordBatch:
    """A batch with the dictionaries of some columns written out."""
    arrays = [
        column.dictionary_decode() if name in names and pa.types.is_dictionary(column.type) else column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)
