"""Writes Parquet files that BigQuery loads: a value that it would refuse is refused while its row can be told apart."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.base import FormatError
from pipelines.formats.parquet.writer import ParquetWriter

_FIRST, _LAST = datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999)
_MOST_ROW_BYTES = 90 << 20
"""BigQuery takes rows of 100 MB."""


class BigQueryParquetWriter(ParquetWriter):
    """Writes Parquet whose every value fits into its column of a table; a load job would fail as a whole otherwise."""

    def write(self, batch: pa.RecordBatch) -> None:
        for field, column in zip(batch.schema, batch.columns, strict=True):
            _require_values(field, column)
            _require_dates(field.name, column)
        if batch.num_rows == 1 and batch.nbytes > _MOST_ROW_BYTES:
            raise FormatError(f"a row of {batch.nbytes:,} bytes is more than BigQuery takes")
        if batch.num_rows > 1 and batch.nbytes > _MOST_ROW_BYTES:
            middle = batch.num_rows // 2
            # Both halves or none: what is written cannot be taken back.
            _require_small_rows(batch)
            self.write(batch[:middle])
            self.write(batch[middle:])
            return
        super().write(batch)


def _require_values(field: pa.Field, column: pa.Array) -> None:
    if column.null_count and not field.nullable:
        raise FormatError(f"column '{field.name}': a value is missing, and the column of the table is REQUIRED")
    if pa.types.is_list(column.type) and pc.list_flatten(column).null_count:
        raise FormatError(f"column '{field.name}': a value is missing in a list, which BigQuery does not take")


def _require_dates(name: str, column: pa.Array) -> None:
    type = column.type.value_type if pa.types.is_list(column.type) else column.type
    if not (pa.types.is_timestamp(type) or pa.types.is_date32(type)):
        return
    values = pc.list_flatten(column) if type is not column.type else column
    first, last = pa.scalar(_FIRST, pa.timestamp("us")), pa.scalar(_LAST, pa.timestamp("us"))
    bounds = (
        (first.cast(type), last.cast(type))
        if pa.types.is_date32(type)
        else (pa.scalar(first.value, type), pa.scalar(last.value, type))
    )
    found = pc.min_max(values)
    if found["min"].is_valid and (
        pc.less(found["min"], bounds[0]).as_py() or pc.greater(found["max"], bounds[1]).as_py()
    ):
        raise FormatError(f"column '{name}': a time before the year 1 or after 9999, which BigQuery does not take")


def _require_small_rows(batch: pa.RecordBatch) -> None:
    if batch.nbytes // batch.num_rows > _MOST_ROW_BYTES or any(
        batch[row : row + 1].nbytes > _MOST_ROW_BYTES for row in range(batch.num_rows)
    ):
        raise FormatError("a row is larger than BigQuery takes")
