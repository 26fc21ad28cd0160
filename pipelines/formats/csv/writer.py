"""Writes CSV."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import IO, Any, cast

import pyarrow as pa

from pipelines.formats.base import Writer, encoding
from pipelines.formats.output_values import nested_type, polars_type


class CsvWriter(Writer):
    """Writes CSV with a header. Fields are quoted where they need it, nulls are empty and unquoted."""

    extension = "csv"
    libraries = ("polars",)

    def __init__(self, file: IO[bytes], schema: pa.Schema, options: Mapping[str, Any]) -> None:
        super().__init__(file, schema, options)
        self._separator = str(options.get("delimiter") or ",")
        header = schema.empty_table().to_batches() or [pa.RecordBatch.from_pylist([], schema=schema)]
        self.file.write(self._encoded(header[0], header=True))

    def _encoded(self, batch: pa.RecordBatch, *, header: bool = False) -> memoryview:
        import polars as pl

        encoded = io.BytesIO()
        with encoding("CSV"):
            frame = cast(pl.DataFrame, pl.from_arrow(batch))
            frame.write_csv(encoded, include_header=header, separator=self._separator)
        return encoded.getbuffer()

    def write(self, batch: pa.RecordBatch) -> None:
        self.file.write(self._encoded(batch))

    @classmethod
    def output_type(cls, type: pa.DataType) -> pa.DataType:
        """Returns the type in which a column is written: text in place of lists (JSON) and of bytes."""
        leaf = nested_type(type, lambda inner: polars_type(inner, "CSV"), "CSV")
        return pa.string() if pa.types.is_nested(leaf) else leaf
