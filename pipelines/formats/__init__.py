"""Turns bytes into record batches and back, one module a format; imported when a run needs it."""

from __future__ import annotations

import importlib
from typing import cast

from pipelines.formats.base import FormatError, Reader, ReadSpec, RowReader, Split, Writer, is_mixed

__all__ = [
    "EXTENSIONS",
    "WRITERS",
    "FormatError",
    "ReadSpec",
    "Reader",
    "RowReader",
    "Split",
    "Writer",
    "is_mixed",
    "reader_class",
    "row_reader_class",
    "writer_class",
]

_READERS = {
    "csv": "csv.reader.CsvReader",
    "json": "json.JsonReader",
    "avro": "avro.reader.AvroReader",
    "parquet": "parquet.reader.ParquetReader",
    "orc": "orc.reader.OrcReader",
    "tfrecord": "tfrecord.reader.TFRecordReader",
    "tfrecord_raw": "tfrecord.raw.RawRecordReader",
    "text": "lines.LineReader",
    "bytes": "whole_files.WholeFileReader",
}
_ROW_READERS = {
    "bigquery": "bigquery_rows.BigQueryRowReader",
    "avro_message": "avro.message.AvroMessageReader",
    "protobuf": "protobuf.message.ProtobufReader",
}
EXTENSIONS = {"csv": "csv", "json": "jsonl", "avro": "avro", "parquet": "parquet", "tfrecord": "tfrecord"}
"""Format -> extension of the files that its writer writes, which is the writer's own."""
WRITERS = {
    "csv": "csv.writer.CsvWriter",
    "json": "json.JsonWriter",
    "avro": "avro.writer.AvroWriter",
    "parquet": "parquet.writer.ParquetWriter",
    "tfrecord": "tfrecord.writer.TFRecordWriter",
}


def reader_class(format: str) -> type[Reader]:
    """Returns the reader of a format's files."""
    return cast(type[Reader], _load(_READERS[format]))


def row_reader_class(format: str) -> type[RowReader]:
    """Returns the reader of a format's rows: the reader of its files, where it has files."""
    return cast(type[RowReader], _load((_READERS | _ROW_READERS)[format]))


def writer_class(format: str) -> type[Writer]:
    """Returns the writer of a format."""
    return cast(type[Writer], _load(WRITERS[format]))


def _load(home: str) -> object:
    module, _, name = home.rpartition(".")
    return getattr(importlib.import_module(f"pipelines.formats.{module}"), name)
