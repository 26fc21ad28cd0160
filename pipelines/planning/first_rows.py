"""Reads the first rows of several files of a source as one batch, so that what `init` proposes suits all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from pipelines.connectors.files.partitions import partition_fields, with_columns
from pipelines.planning import source_columns
from pipelines.planning.source_columns import Columns
from pipelines.storage import FileInfo

MOST_FILES = 8
"""Files of which rows are read, evenly spread, the first and the last among them."""


def first_rows(
    found: Sequence[FileInfo], read: Callable[[str], pa.RecordBatch], format: str
) -> tuple[pa.RecordBatch, Columns]:
    """Returns the first rows of files, with the columns of all of them; and what the columns of each file are.

    A column is null in the rows of a file that does not have it. One whose types have none in common is text.

    Args:
      found: the files.
      read: gives the first rows of one; raises FormatError or OSError.
      format: of the files.

    Raises:
      FormatError, OSError: the first file cannot be read.
    """
    first = read(found[0].path)
    samples = {found[0].path: first}

    def schema(path: str) -> pa.Schema:
        if path not in samples:
            samples[path] = read(path)
        return samples[path].schema

    chosen = source_columns.spread(found, MOST_FILES)
    columns = source_columns.look_at(found, schema, format, None, MOST_FILES)
    folders = pa.schema(partition_fields(found).values())
    batches = [with_columns(samples[file.path], file.partition, folders) for file in chosen if file.path in samples]
    if len(batches) == 1 or columns.schema is None:
        return batches[0], columns
    fields = [_field(field, batches, field.name in columns.clashes) for field in columns.schema]
    values = [pa.chunked_array([_column(batch, field) for batch in batches], field.type) for field in fields]
    table = pa.table(values, pa.schema(fields)).combine_chunks()
    return pa.RecordBatch.from_arrays([column.chunk(0) for column in table.columns], schema=table.schema), columns


def _field(field: pa.Field, batches: Sequence[pa.RecordBatch], clashes: bool) -> pa.Field:
    """A field as it is in the rows of all files."""
    types = [batch.schema.field(field.name).type for batch in batches if field.name in batch.schema.names]
    return field.with_type(pa.string()) if clashes and not any(pa.types.is_nested(type) for type in types) else field


def _column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    """A column of a file's rows with the type that it has in all; nulls where it is missing, or of another kind."""
    if field.name in batch.schema.names:
        try:
            return batch.column(field.name).cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass
    return pa.nulls(batch.num_rows, field.type)
