"""Reads Avro object container files by runs of blocks, decoded in columns by polars.

A file whose schema polars does not know (unions of several types, recursive types) is decoded row by row by
fastavro; which of the two is decided once, from the schema. Blocks are unpacked here, so that polars never
sees a codec or a string: both are rewritten to what it certainly reads (see `avro_schema`). Blocks that would take
too much memory are cut between rows (see `avro_rows`); rows that would are dead letters (see `limits`).

Positions are row numbers in a local file. In a remote one, where counting would mean reading every block's
header, they are `(byte offset of the block << 20) + row number in the block`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipelines.formats.avro import container
from pipelines.formats.avro.decoder import Decoder
from pipelines.formats.avro.origin import open_container
from pipelines.formats.avro.schema import resolve
from pipelines.formats.avro.writer import AvroWriter
from pipelines.formats.base import FormatError, Reader, ReadSpec, Split
from pipelines.formats.table import (
    broken_file,
    table_size,
)
from pipelines.rows.origin import Block, RejectedRow
from pipelines.storage import is_remote

__all__ = ["AvroReader", "AvroWriter"]


class AvroReader(Reader):
    """Reads the columns wanted from blocks of any codec: null, deflate, snappy, zstandard, bzip2, xz."""

    has_own_types = True
    libraries = ("polars",)

    def may_grow(self, file: str, size: int) -> bool:
        return True

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        """Returns the columns of `file`; none if it has no bytes."""
        if not table_size(None, file):
            return pa.schema([])
        with open_container(file, None) as opened:
            record = resolve(container.read_header(opened, file).schema, file)
        return pa.schema([(name, node.type) for name, node in record.children.items()])

    @classmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        schema, size = cls.schema(file, options), table_size(None, file)
        if size:
            for found in cls(ReadSpec(schema, options))._read(file, None, size, None, 0):
                if isinstance(found, Block):
                    return found.batch.slice(0, rows)
        return pa.RecordBatch.from_pylist([], schema=schema)

    def splits(self, file: str, size: int, split_bytes: int) -> list[Split]:
        if not size:
            return []
        with open_container(file, None) as opened:
            try:
                header = container.read_header(opened, file)
            except FormatError:
                return [Split(file, 0, size, size)]
            begin = len(header.raw)
            cuts: list[tuple[int, int]] = []
            if is_remote(file):
                for wanted in range(begin, size, split_bytes):
                    # The header too ends with the marker.
                    found = container.find_block(opened, header.sync, wanted - len(header.sync), size)
                    if found < size and (not cuts or found > cuts[-1][0]):
                        cuts.append((begin if wanted == begin else found, -1))
                if not cuts and begin < size:
                    cuts.append((begin, -1))
            else:
                row = 0
                for piece in container.pieces(opened, header.sync, begin, size, size):
                    if not cuts or piece.end - cuts[-1][0] > split_bytes:
                        cuts.append((piece.start, row))
                    row += piece.rows
        ends = [*(start for start, _ in cuts[1:]), size] if cuts else []
        return [Split(file, start, end, end - start, (size, row)) for (start, row), end in zip(cuts, ends, strict=True)]

    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        size, row = split.context or (split.end, 0)
        return self._read(split.file, None, size, split if split.context else None, row)

    def replay(self, payload: bytes, context: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        if payload:
            yield from self._read(name, payload, len(payload), None, 0)

    def _read(
        self, name: str, content: bytes | None, size: int, split: Split | None, row: int
    ) -> Iterator[Block | RejectedRow]:
        with open_container(name, content) as file:
            try:
                decoder = Decoder(container.read_header(file, name), name, self.spec)
            except FormatError as error:
                yield broken_file(name, content, size, str(error).removeprefix(f"{name}: "))
                return
            start, end = (split.start, split.end) if split else (len(decoder.header.raw), size)
            for group in decoder.groups(file, start, end, size):
                yield from decoder.read(file, group, content, row)
                row = row + sum(piece.rows for piece, _ in group) if row >= 0 else row
                # What it holds may be large, and the next one is made meanwhile.
                group.clear()
