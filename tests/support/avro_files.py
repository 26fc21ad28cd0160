"""Reads Avro files in a process of a test."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.formats.avro.reader import AvroReader
from pipelines.formats.avro.writer import AvroWriter
from pipelines.formats.base import Split
from pipelines.rows.origin import Block, RejectedRow


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def run(reader: AvroReader, splits: list[Split]) -> tuple[list[Block], list[RejectedRow]]:
    found = [item for split in splits for item in reader.read(split)]
    return [i for i in found if isinstance(i, Block)], [i for i in found if isinstance(i, RejectedRow)]


def everything(reader: AvroReader, file: str) -> tuple[list[Block], list[RejectedRow]]:
    return run(reader, reader.splits(file, Path(file).stat().st_size, 1 << 20))


UTC = dt.timezone.utc


def written(table: pa.Table, options: dict[str, Any], size: int = 77) -> bytes:
    sink = io.BytesIO()
    writer = AvroWriter(sink, table.schema, options)
    for batch in table.to_batches(max_chunksize=size):
        writer.write(batch)
    writer.close()
    assert not sink.closed
    return sink.getvalue()
