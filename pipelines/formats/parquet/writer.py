"""Writes Parquet, by row groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.formats.base import FormatError, Writer
from pipelines.formats.output_values import nested_type, refusal, text_type
from pipelines.formats.readable import readable_type
from pipelines.formats.table import (
    READ_ERRORS,
)

ROW_GROUP_ROWS = 131_072


ROW_GROUP_BYTES = 64 << 20
"""Rows and bytes in memory at which a row group is written."""


class ParquetWriter(Writer):
    """Writes row groups of 131,072 rows or 64 MiB.

    Options: `compression` (default `zstd`; `snappy`, `gzip`, `lz4`, `none`).
    """

    extension = "parquet"

    def __init__(self, file: IO[bytes], schema: pa.Schema, options: Mapping[str, Any]) -> None:
        super().__init__(file, schema, options)
        self._pending: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        compression = str(options.get("compression", "zstd"))
        try:
            self._writer = pq.ParquetWriter(file, schema, compression=compression)
        except READ_ERRORS as error:
            raise FormatError(f"Parquet: {error}") from error

    def write(self, batch: pa.RecordBatch) -> None:
        # All that can be wrong with a batch shows here: what is written later cannot fail on its values.
        if not batch.schema.equals(self.schema):
            raise FormatError(f"the batch has the columns {batch.schema}, the file has {self.schema}")
        batch.validate(full=True)
        self._pending.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    @classmethod
    def output_type(cls, type: pa.DataType) -> pa.DataType:
        """Returns the type in which a column is written: its own, but lists for lists of a fixed size, which cannot be
        read again where some are null.

        Intervals, and decimals that are rounded to tens or more, are written as text.
        """
        type = readable_type(type, nested=True)
        wanted = nested_type(type, _held, "Parquet") if _is_changed(type) else type
        try:
            pq.write_table(pa.table({"a": pa.nulls(0, wanted)}), pa.BufferOutputStream())
        except (pa.ArrowException, OSError):
            raise refusal(type, "Parquet") from None
        return wanted

    def _flush(self) -> None:
        if self._pending:
            table = pa.Table.from_batches(self._pending, self.schema)
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self._pending, self._rows, self._bytes = [], 0, 0


def _held(type: pa.DataType) -> pa.DataType:
    rounded = pa.types.is_decimal(type) and not 0 <= type.scale <= type.precision
    return text_type(type, "Parquet") if rounded or pa.types.is_interval(type) else type


def _is_changed(type: pa.DataType) -> bool:
    """Whether values are written as another type than their own."""
    if not pa.types.is_nested(type):
        return bool(_held(type) != type)
    inner = [type.field(index).type for index in range(type.num_fields)]
    return pa.types.is_fixed_size_list(type) or any(map(_is_changed, inner))
