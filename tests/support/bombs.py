"""Makes small files that become large when they are read, and tells what a reader makes of them."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

from pipelines.formats import reader_class
from pipelines.formats.base import ReadSpec
from pipelines.formats.tfrecord.frames import frame, length_checksums, mask
from pipelines.rows.origin import Block

MIB = 1 << 20
WORDS = pa.dictionary(pa.int32(), pa.string())
NUMBERS_AND_TEXT = pa.schema([("a", pa.float32()), ("s", pa.string())])


def read_all(format: str, path: str, columns: str, payload: str = "") -> dict[str, Any]:
    """Reads a file as a run does, keeping nothing; gives counts and the first messages.

    Args:
      format: of the file.
      path: the file.
      columns: the columns wanted, as a serialized schema in hex.
      payload: whether the payload of one row in a thousand is asked for, too.
    """
    schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(columns)))
    reader = reader_class(format)(ReadSpec(schema))
    good = rejected = letters = largest = 0
    messages: list[str] = []
    for split in reader.splits(path, os.path.getsize(path), 64 * MIB):
        for piece in reader.read(split):
            if isinstance(piece, Block):
                good += piece.rows
                largest = max(largest, piece.rows)
                if payload:
                    piece.origin.payload(piece.rows - 1)
            else:
                rejected, letters = rejected + piece.rows, letters + 1
                messages += [piece.message[:300]] if len(messages) < 3 else []
    return {"good": good, "rejected": rejected, "letters": letters, "largest": largest, "messages": messages}


def schema_text(schema: pa.Schema) -> str:
    """A schema for `read_all`."""
    return bytes(schema.serialize()).hex()


def repeated(path: Path, head: bytes, piece: bytes, times: int) -> Path:
    """A compressed text: a head, and a piece many times, each packed once."""
    pack: Callable[[bytes], bytes] = {
        ".gz": lambda data: gzip.compress(data, 6),
        ".bz2": bz2.compress,
        ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    }[path.suffix]
    with path.open("wb") as file:
        file.write(pack(head) if head else b"")
        file.write(pack(piece) * times)
    return path


def repeated_text(path: Path, rows: int, nbytes: int) -> Path:
    """Parquet, a dictionary with one long text for all rows."""
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * nbytes]))
    pq.write_table(pa.table({"a": np.arange(rows, dtype=np.float32), "s": words}), path, compression="zstd")
    return path


def shared_prefixes(path: Path) -> Path:
    """Parquet, each text its predecessor with little at its end."""
    texts = ["x" * MIB + str(number) for number in range(3)] * 90
    options: dict[str, Any] = {"use_dictionary": False, "column_encoding": {"s": "DELTA_BYTE_ARRAY"}}
    pq.write_table(pa.table({"s": texts}), path, compression="zstd", **options)
    return path


def long_lists(path: Path) -> Path:
    """Parquet, runs of one value that become lists of many."""
    table = pa.table({"l": pa.array([np.zeros(40_000_000, np.int32)], pa.list_(pa.int32()))})
    pq.write_table(pa.concat_tables([table, table]), path, row_group_size=2)
    return path


def large_page(path: Path) -> Path:
    """Parquet, one page of 400 MB that is packed to a few KB."""
    pq.write_table(
        pa.table({"d": np.zeros(50_000_000)}),
        path,
        row_group_size=1 << 26,
        use_dictionary=False,
        compression="zstd",
        data_page_size=1 << 30,
        max_rows_per_page=1 << 30,
        write_statistics=False,
    )
    return path


def unreadable(path: Path, rows: int) -> Path:
    """Parquet, many rows whose pages are damaged."""
    pq.write_table(pa.table({"a": np.zeros(rows, np.float32)}), path, row_group_size=rows, compression="zstd")
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    return path


def repeated_text_orc(path: Path) -> Path:
    """ORC, one long text for all rows."""
    with orc.ORCWriter(str(path), compression="zstd", dictionary_key_size_threshold=1.0) as writer:
        for _ in range(12):
            writer.write(pa.table({"a": np.zeros(50, np.float32), "s": ["x" * MIB] * 50}))
    return path


def framed(record: bytes) -> bytes:
    """A record of a TFRecord file."""
    return bytes(frame(pa.array([record], pa.large_binary())))


def huge_length(path: Path) -> Path:
    """TFRecord, a frame that says it has 2^60 bytes."""
    length = struct.pack("<Q", 1 << 60)
    check = mask(length_checksums(np.frombuffer(length, np.uint8)[None, :])).astype("<u4").tobytes()
    path.write_bytes(framed(b"") + length + check + b"x" * 1000)
    return path


def packed_numbers(path: Path) -> Path:
    """TFRecord, gzip: tf.Examples of 15 MiB of numbers of a byte each."""

    def field(number: int, data: bytes) -> bytes:
        size, length = bytearray(), len(data)
        while length > 0x7F:
            size.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes([number << 3 | 2]) + bytes(size) + bytes([length]) + data

    values = field(3, field(1, b"\x01" * (15 * MIB)))
    record = framed(field(1, field(1, field(1, b"v") + field(2, values))))
    path.write_bytes(gzip.compress(record, 6) * 2)
    return path


def many_members(path: Path) -> Path:
    """TFRecord, gzip: a hundred thousand empty members before a record."""
    path.write_bytes(gzip.compress(b"") * 100_000 + gzip.compress(framed(b"")))
    return path


def packed_zeros(path: Path, mib: int) -> Path:
    """TFRecord, gzip: zeros, which are no frames."""
    packer, sink = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16), io.BytesIO()
    for _ in range(mib):
        sink.write(packer.compress(bytes(MIB)))
    path.write_bytes(sink.getvalue() + packer.flush())
    return path
