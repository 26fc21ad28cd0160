"""Writes Avro object container files, in columns by polars.

polars encodes a batch of plain numbers, bytes, lists and structs; its blocks are taken out of the container
it makes and put into ours, whose schema says what they mean. Every value, items of lists included, is a
union with null.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import pyarrow as pa

from inference.columns.coercion import is_bytes, is_list
from inference.columns.nulls import kept_where
from pipelines.formats.avro import container
from pipelines.formats.avro.schema import resolve
from pipelines.formats.base import FormatError, Writer, encoding
from pipelines.formats.output_values import nested_type, text_type

BLOCK_BYTES = 1 << 20
"""Bytes of columns in memory that make one block."""

CODECS = ("deflate", "snappy", "zstandard", "bzip2", "null")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SIMPLE = {
    pa.bool_(): ("boolean", pa.bool_()),
    pa.int32(): ("int", pa.int32()),
    pa.int64(): ("long", pa.int64()),
    pa.float32(): ("float", pa.float32()),
    pa.float64(): ("double", pa.float64()),
    pa.string(): ("string", pa.large_binary()),
    pa.binary(): ("bytes", pa.large_binary()),
    pa.date32(): ({"type": "int", "logicalType": "date"}, pa.int32()),
    pa.time32("ms"): ({"type": "int", "logicalType": "time-millis"}, pa.int32()),
    pa.time64("us"): ({"type": "long", "logicalType": "time-micros"}, pa.int64()),
}


class AvroWriter(Writer):
    """Writes one container.

    Options: `codec`, one of `deflate` (the default: every reader of Avro has it), `snappy`, `zstandard`,
    `bzip2`, `null`.
    """

    extension = "avro"
    libraries = ("polars",)

    def __init__(self, file: IO[bytes], schema: pa.Schema, options: Mapping[str, Any]) -> None:
        super().__init__(file, schema, options)
        self._codec = str(options.get("codec", "deflate"))
        if self._codec not in CODECS:
            raise FormatError(f"Avro: unknown codec {self._codec!r}; one of {', '.join(CODECS)}")
        self._sync = os.urandom(container.SYNC_BYTES)
        counter = iter(range(1 << 30))
        fields = [{"name": _checked(f.name), "type": _union(f.type, counter)} for f in schema]
        if not fields:
            raise FormatError("Avro: a row needs at least one column")
        record = {"type": "record", "name": "row", "fields": fields}
        # What is written here can be read again.
        resolve(record, "Avro")
        self._header = container.header_bytes(record, self._codec, self._sync)

    def write(self, batch: pa.RecordBatch) -> None:
        if not batch.schema.equals(self.schema):
            raise FormatError(f"the batch has the columns {batch.schema}, the file has {self.schema}")
        batch.validate(full=True)
        arrays = [_plain(column) for column in batch.columns]
        table = pa.table(arrays, names=[f"c{i}" for i in range(len(arrays))])
        # polars 1.44 writes the wrong items after a list that is null or empty.
        encode = self._encode_rows if any(_has_bare_list(array) for array in arrays) else self._encode
        step = max(1, batch.num_rows * BLOCK_BYTES // max(batch.nbytes, 1))
        blocks = [encode(table.slice(at, step)) for at in range(0, batch.num_rows, step)]
        self._append(b"".join(blocks))

    def close(self) -> None:
        self._append(b"")

    @classmethod
    def output_type(cls, type: pa.DataType) -> pa.DataType:
        found = nested_type(type, _avro_leaf, "Avro")
        _check_names(found)
        return found

    def _encode(self, table: pa.Table) -> bytes:
        import polars as pl

        sink = io.BytesIO()
        with encoding("Avro"):
            pl.DataFrame(pl.from_arrow(table)).rechunk().write_avro(sink)
        sink.seek(0)
        size = sink.getbuffer().nbytes
        header = container.read_header(sink, "polars")
        blocks = []
        for piece in container.pieces(sink, header.sync, len(header.raw), size, size):
            if piece.damage:
                raise FormatError(f"Avro: {piece.damage}")
            data = container.compress(self._codec, sink.getvalue()[slice(*piece.data)])
            blocks.append(container.block_bytes(piece.rows, data, self._sync))
        return b"".join(blocks)

    def _encode_rows(self, table: pa.Table) -> bytes:
        import fastavro

        counter = iter(range(1 << 30))
        fields = [{"name": f.name, "type": _union(f.type, counter)} for f in table.schema]
        schema = fastavro.parse_schema({"type": "record", "name": "row", "fields": fields})
        sink = io.BytesIO()
        for row in table.to_pylist():
            fastavro.schemaless_writer(sink, schema, row)
        data = container.compress(self._codec, sink.getvalue())
        return container.block_bytes(table.num_rows, data, self._sync)

    def _append(self, blocks: bytes) -> None:
        if self._header or blocks:
            self.file.write(self._header + blocks)
            self._header = b""


_NARROW = (pa.int8(), pa.int16(), pa.uint8(), pa.uint16())


def _avro_leaf(type: pa.DataType) -> pa.DataType:
    """The type of a value, not nested, in the file."""
    if type in _SIMPLE or _logical(type):
        return type
    for test, wider in (
        (pa.types.is_integer, pa.int32() if type in _NARROW else pa.int64()),
        (pa.types.is_float16, pa.float32()),
        (is_bytes, pa.binary()),
        (pa.types.is_date64, pa.timestamp("ms")),
        (pa.types.is_time32, pa.time32("ms")),
        (pa.types.is_time64, pa.time64("us")),
    ):
        if test(type):
            return wider
    if pa.types.is_timestamp(type):
        return pa.timestamp("ms" if type.unit == "s" else type.unit, type.tz and "UTC")
    if pa.types.is_decimal(type) and 0 <= type.scale <= type.precision:
        return pa.decimal128(type.precision, type.scale)
    return text_type(type, "Avro")


def _check_names(type: pa.DataType) -> None:
    """Raises FormatError if a field inside of a type cannot have its name."""
    if pa.types.is_struct(type):
        for field in type:
            _checked(field.name)
            _check_names(field.type)
    elif is_list(type):
        _check_names(type.value_type)


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise FormatError(
            f'Avro: a column cannot be named "{name}": only letters, digits and _ are allowed, and no digit '
            "first. Rename the column, or write another format"
        )
    return name


def _logical(type: pa.DataType) -> dict[str, Any] | None:
    """The Avro type of timestamps and decimals."""
    if pa.types.is_timestamp(type) and type.unit in ("ms", "us", "ns") and type.tz in (None, "UTC"):
        unit = {"ms": "millis", "us": "micros", "ns": "nanos"}[type.unit]
        return {"type": "long", "logicalType": f"{'' if type.tz else 'local-'}timestamp-{unit}"}
    if (pa.types.is_decimal128(type) or pa.types.is_decimal256(type)) and 0 <= type.scale <= type.precision:
        return {
            "type": "bytes",
            "logicalType": "decimal",
            "precision": type.precision,
            "scale": type.scale,
        }
    return None


def _union(type: pa.DataType, counter: Any) -> list[Any]:
    """The Avro type that says what polars writes for a column of `type` made plain."""
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        return ["null", {"type": "array", "items": _union(type.value_type, counter)}]
    if pa.types.is_struct(type):
        name = f"row_{next(counter)}"
        fields = [{"name": _checked(f.name), "type": _union(f.type, counter)} for f in type]
        return ["null", {"type": "record", "name": name, "fields": fields}]
    found = _SIMPLE[type][0] if type in _SIMPLE else _logical(type)
    found = "bytes" if pa.types.is_large_binary(type) else found
    if found is None:
        raise FormatError(f"Avro cannot hold columns of type {type}; convert it to {AvroWriter.output_type(type)}")
    return ["null", found]


def _has_bare_list(array: pa.Array) -> bool:
    """Whether a list, at any depth, is null or empty."""
    if pa.types.is_large_list(array.type):
        empty = np.any(np.diff(array.offsets.to_numpy()) == 0)
        return array.null_count > 0 or bool(empty) or _has_bare_list(array.values)
    return pa.types.is_struct(array.type) and any(_has_bare_list(column) for column in array.flatten())


def _plain(array: pa.Array) -> pa.Array:
    """The same bytes on the wire, of a type that polars writes as it is."""
    type = array.type
    if pa.types.is_list(type):
        if array.offset:
            array = array.take(pa.array(range(len(array))))
        mask = array.is_null() if array.null_count else None
        return pa.LargeListArray.from_arrays(array.offsets.cast(pa.int64()), _plain(array.values), mask=mask)
    if pa.types.is_struct(type):
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(
            [_plain(column) for column in array.flatten()], names=[field.name for field in type], mask=mask
        )
    if type in _SIMPLE:
        plain = _SIMPLE[type][1]
        return array.cast(plain) if pa.types.is_large_binary(plain) else array.view(plain)
    if pa.types.is_timestamp(type):
        return array.view(pa.int64())
    width = type.bit_width // 8
    little = np.frombuffer(array.buffers()[1], np.uint8).reshape(-1, width)[array.offset :][: len(array)]
    big = pa.py_buffer(np.ascontiguousarray(little[:, ::-1]).tobytes())
    fixed = pa.Array.from_buffers(pa.binary(width), len(array), [None, big]).cast(pa.large_binary())
    return kept_where(fixed, array.is_valid())
