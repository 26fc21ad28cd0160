"""Avro object container files, by runs of blocks, decoded in columns by polars.

A file whose schema polars does not know (unions of several types, recursive types) is decoded row by row by
fastavro; which of the two is decided once, from the schema. Blocks are unpacked here, so that polars never
sees a codec or a string: both are rewritten to what it certainly reads (see `avro_schema`).

Positions are row numbers in a local file. In a remote one, where counting would mean reading every block's
header, they are `(byte offset of the block << 20) + row number in the block`.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa

from pipelines.files import is_remote, open_input, read_fully
from pipelines.formats import avro_container as container
from pipelines.formats.avro_container import CorruptError, Header, Piece
from pipelines.formats.avro_schema import Node, array_of, convert, resolve, smallest
from pipelines.formats.avro_writer import AvroWriter
from pipelines.formats.base import BLOCK_BYTES, MAX_PAYLOAD_BYTES, FormatError, Reader, ReadSpec, Split
from pipelines.formats.table import (
    BATCH_ROWS,
    TableOrigin,
    broken_file,
    emit,
    lost_rows,
    table_size,
)
from pipelines.rows import Block, Positions, RejectedRow

__all__ = ["AvroReader", "AvroWriter"]

_ROW_BITS = 20
_MARK = bytes(container.SYNC_BYTES)


@dataclass
class AvroOrigin(TableOrigin):
    """Rows of neighbouring blocks.

    Attributes:
      header: the container's header.
      blocks: where the blocks are.
      offset: row number, in the blocks, of the first row of the batch.
    """

    header: bytes = b""
    blocks: tuple[Piece, ...] = ()
    offset: int = 0

    def __post_init__(self) -> None:
        self._records: tuple[int, list[bytes]] = (-1, [])

    def numbers(self, indices: Positions) -> Positions:
        if self.first >= 0:
            return indices + self.first
        ends = np.cumsum([block.rows for block in self.blocks])
        block = np.searchsorted(ends, indices + self.offset, side="right")
        starts = np.array([(piece.start << _ROW_BITS) + piece.rows for piece in self.blocks], np.int64)
        found: Positions = starts[block] - ends[block] + indices + self.offset
        return found

    def document(self, index: int) -> bytes:
        header = container.read_header(io.BytesIO(self.header), self.file)
        begin = container.header_bytes(header.schema, "null", header.sync)
        try:
            return begin + container.block_bytes(1, self._record(header, index), header.sync)
        except (OSError, ValueError, EOFError, IndexError):
            # The file is gone or has changed since: the columns in memory are what is left of the row.
            sink, row = io.BytesIO(), self.batch.slice(index, 1)
            types = [(field.name, AvroWriter.output_type(field.type)) for field in row.schema]
            writer = AvroWriter(sink, pa.schema(types), {"codec": "null"})
            writer.write(row.cast(writer.schema))
            writer.close()
            return sink.getvalue()

    def _record(self, header: Header, index: int) -> bytes:
        """The bytes of one row, found by decoding those before it."""
        row, number = self.offset + index, 0
        while row >= self.blocks[number].rows:
            row -= self.blocks[number].rows
            number += 1
        piece = self.blocks[number]
        if self._records[0] != number:
            with _open(self.file, self.content) as file:
                data = container.decompress(header.codec, _content(file, piece))
            schema = _row_schema(resolve(header.schema, self.file))
            ends = [0, *(end for _, end in _rows(data, schema, piece.rows))]
            self._records = number, [data[a:b] for a, b in itertools.pairwise(ends)]
        return self._records[1][row]


class AvroReader(Reader):
    """Reads the columns wanted from blocks of any codec: null, deflate, snappy, zstandard, bzip2, xz."""

    libraries = ("polars",)

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        """The columns of `file`; none if it has no bytes."""
        if not table_size(None, file):
            return pa.schema([])
        with _open(file, None) as opened:
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
        with _open(file, None) as opened:
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
        with _open(name, content) as file:
            try:
                decoder = _Decoder(container.read_header(file, name), name, self.spec)
            except FormatError as error:
                yield broken_file(name, content, size, str(error))
                return
            start, end = (split.start, split.end) if split else (len(decoder.header.raw), size)
            for group in _groups(file, decoder.header, start, end, size):
                yield from decoder.read(file, group, name, content, row)
                row = row + sum(piece.rows for piece, _ in group) if row >= 0 else row


class _Decoder:
    """Decodes blocks of one file."""

    def __init__(self, header: Header, name: str, spec: ReadSpec) -> None:
        self.header, self.spec = header, spec
        self.record = resolve(header.schema, name)
        names = list(self.record.children)
        asked = set(spec.columns.names)
        self.wanted = [n for n in names if n in asked] or names[:1]
        self.columnar = self.record.columnar
        self.begin = container.header_bytes(self.record.simple, "null", _MARK) if self.columnar else b""
        self.schema = None if self.columnar else _row_schema(self.record)

    def read(
        self, file: IO[bytes], group: list[tuple[Piece, bytes]], name: str, content: bytes | None, row: int
    ) -> Iterator[Block | RejectedRow]:
        """Decodes neighbouring blocks together, or one by one if that fails."""
        blocks = tuple(piece for piece, _ in group)
        try:
            if blocks[0].damage:
                raise CorruptError(blocks[0].damage)
            unpacked = [container.decompress(self.header.codec, data) for _, data in group]
            batch = self.decode(sum(piece.rows for piece in blocks), b"".join(unpacked))
        except CorruptError as error:
            if len(group) == 1:
                yield from self._reject(file, blocks[0], name, row, str(error))
                return
            for member in group:
                yield from self.read(file, [member], name, content, row)
                row = row + member[0].rows if row >= 0 else row
            return
        for offset in range(0, batch.num_rows, BATCH_ROWS):
            first = row + offset if row >= 0 else row
            part = batch.slice(offset, BATCH_ROWS)
            yield from emit(
                AvroOrigin(name, {"type": "avro"}, first, part, None, content, self.header.raw, blocks, offset),
                self.spec,
            )

    def decode(self, rows: int, data: bytes) -> pa.RecordBatch:
        """The rows of blocks as columns. Raises CorruptError."""
        if rows > len(data) and smallest(self.record):
            raise CorruptError(f"a block says that it has {rows} rows in {len(data)} bytes")
        if self.columnar:
            arrays = self._decode_columns(rows, data)
        else:
            try:
                records = [record for record, _ in _rows(data, self.schema, rows)]
                arrays = [array_of([r[n] for r in records], self.record.children[n]) for n in self.wanted]
            except (ValueError, EOFError, IndexError, OverflowError, pa.ArrowException) as error:
                raise CorruptError(f"the block does not decode: {error!r}") from None
        return pa.RecordBatch.from_arrays(arrays, self.wanted)

    def _decode_columns(self, rows: int, data: bytes) -> list[pa.Array]:
        import polars as pl

        failures = (OSError, ValueError, MemoryError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
        source = io.BytesIO(self.begin + container.block_bytes(rows, data, _MARK))
        try:
            table = pl.read_avro(source, columns=self.wanted).to_arrow()
        except failures as error:
            raise CorruptError(f"the block does not decode: {error}") from None
        if table.num_rows != rows:
            raise CorruptError(f"the block has {table.num_rows} rows, and says that it has {rows}")
        return [convert(pa.concat_arrays(table.column(n).chunks), self.record.children[n]) for n in self.wanted]

    def _reject(self, file: IO[bytes], piece: Piece, name: str, row: int, message: str) -> Iterator[RejectedRow]:
        """The rows of a block that cannot be decoded; the first one holds the block, as a container."""
        row = row if row >= 0 else piece.start << _ROW_BITS
        file.seek(piece.start)
        raw = read_fully(file, min(piece.end - piece.start, MAX_PAYLOAD_BYTES))
        cut = len(raw) < piece.end - piece.start
        message = f"{name}: the block of {piece.rows} rows at byte {piece.start} cannot be read: {message}"
        if piece.rows:
            yield RejectedRow(self.header.raw + raw, row, message, truncated=cut)
            yield from lost_rows(row + 1, piece.rows - 1, f"{message}; its bytes are with row {row}")


def _groups(file: IO[bytes], header: Header, start: int, end: int, size: int) -> Iterator[list[tuple[Piece, bytes]]]:
    """The blocks and their content, in groups of about BLOCK_BYTES or BATCH_ROWS; damaged pieces alone."""
    group: list[tuple[Piece, bytes]] = []
    nbytes = rows = 0
    for piece in container.pieces(file, header.sync, start, end, size):
        length = piece.data[1] - piece.data[0]
        if not piece.damage and length > container.MAX_BLOCK_BYTES:
            message = f"it has more than {container.MAX_BLOCK_BYTES} bytes"
            piece = Piece(piece.start, piece.end, piece.rows, piece.data, message)
        if group and (piece.damage or nbytes + length > BLOCK_BYTES or rows + piece.rows > BATCH_ROWS):
            yield group
            group, nbytes, rows = [], 0, 0
        if piece.damage:
            yield [(piece, b"")]
        else:
            group.append((piece, _content(file, piece)))
            nbytes, rows = nbytes + length, rows + piece.rows
    if group:
        yield group


def _content(file: IO[bytes], piece: Piece) -> bytes:
    file.seek(piece.data[0])
    return read_fully(file, piece.data[1] - piece.data[0])


def _open(file: str, content: bytes | None) -> IO[bytes]:
    if content is not None:
        return io.BytesIO(content)
    opened = open_input(file)
    return opened if is_remote(file) else cast(IO[bytes], io.BufferedReader(cast(io.FileIO, opened), 1 << 18))


def _row_schema(record: Node) -> Any:
    import fastavro

    return fastavro.parse_schema(record.simple)


def _rows(data: bytes, schema: Any, count: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The rows of a block one by one, and where each ends."""
    import fastavro

    stream = io.BytesIO(data)
    for _ in range(count):
        record = fastavro.schemaless_reader(stream, schema, None)
        yield cast(dict[str, Any], record), stream.tell()
