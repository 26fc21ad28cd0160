"""Avro object container files, by runs of blocks, decoded in columns by polars.

A file whose schema polars does not know (unions of several types, recursive types) is decoded row by row by
fastavro; which of the two is decided once, from the schema. Blocks are unpacked here, so that polars never
sees a codec or a string: both are rewritten to what it certainly reads (see `avro_schema`). Blocks that would take
too much memory are cut between rows (see `avro_rows`); rows that would are dead letters (see `limits`).

Positions are row numbers in a local file. In a remote one, where counting would mean reading every block's
header, they are `(byte offset of the block << 20) + row number in the block`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa

from pipelines.formats.avro import container
from pipelines.formats.avro.container import CorruptError, Header, Piece
from pipelines.formats.avro.rows import FAILURES, Part, Rows
from pipelines.formats.avro.schema import array_of, convert, resolve
from pipelines.formats.avro.writer import AvroWriter
from pipelines.formats.base import BLOCK_BYTES, MAX_PAYLOAD_BYTES, FormatError, Reader, ReadSpec, Split
from pipelines.formats.limits import DECODED_BYTES, MAX_KEPT_BYTES, UNPACKED_BYTES
from pipelines.formats.table import (
    BATCH_ROWS,
    TableOrigin,
    believed_rows,
    broken_file,
    emit,
    table_size,
)
from pipelines.rows.origin import Block, Positions, RejectedRow
from pipelines.storage import is_remote, open_input, read_fully

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
      known: number of a row in the first block, and its offset in the block's unpacked bytes: rows are looked for
        from there.
    """

    header: bytes = b""
    blocks: tuple[Piece, ...] = ()
    offset: int = 0
    known: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self._found: dict[int, tuple[int, bytes, Positions]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_found": {}}

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
            sink, row = io.BytesIO(), _text_as_bytes(self.batch.slice(index, 1))
            types = [(field.name, AvroWriter.output_type(field.type)) for field in row.schema]
            writer = AvroWriter(sink, pa.schema(types), {"codec": "null"})
            writer.write(row.cast(writer.schema))
            writer.close()
            return sink.getvalue()

    def _record(self, header: Header, index: int) -> bytes:
        """The bytes of one row."""
        first, number = 0, 0
        while self.offset + index >= first + self.blocks[number].rows:
            first += self.blocks[number].rows
            number += 1
        if number not in self._found:
            self._found = {number: self._rows_of(header, number, first)}
        row, data, ends = self._found[number]
        at = self.offset + index - row
        return data[ends[at] - ends[0] : ends[at + 1] - ends[0]]

    def _rows_of(self, header: Header, number: int, first: int) -> tuple[int, bytes, Positions]:
        """The rows of the batch that are in a block: number of the first one, their bytes, and where each ends."""
        with _open(self.file, self.content) as file:
            data = container.decompress(header.codec, _content(file, self.blocks[number]))
        rows = Rows(resolve(header.schema, self.file))
        begin = max(first, self.offset)
        count = min(first + self.blocks[number].rows, self.offset + self.batch.num_rows) - begin
        known, at = (self.known[0] + first, self.known[1]) if number == 0 else (first, 0)
        ends = rows.ends(data, rows.skip(data, at, begin - known), count)
        return begin, data[ends[0] : ends[-1]], ends


def _text_as_bytes(row: pa.RecordBatch) -> pa.RecordBatch:
    """A row whose text is bytes where it is not UTF-8, as which it can be written."""
    try:
        row.validate(full=True)
    except pa.ArrowInvalid:
        texts = (pa.types.is_string, pa.types.is_large_string)
        return row.cast(
            pa.schema([f.with_type(pa.binary()) if any(t(f.type) for t in texts) else f for f in row.schema])
        )
    return row


class AvroReader(Reader):
    """Reads the columns wanted from blocks of any codec: null, deflate, snappy, zstandard, bzip2, xz."""

    libraries = ("polars",)

    def may_grow(self, file: str, size: int) -> bool:
        return True

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
                yield broken_file(name, content, size, str(error).removeprefix(f"{name}: "))
                return
            start, end = (split.start, split.end) if split else (len(decoder.header.raw), size)
            for group in decoder.groups(file, start, end, size):
                yield from decoder.read(file, group, content, row)
                row = row + sum(piece.rows for piece, _ in group) if row >= 0 else row
                # What it holds may be large, and the next one is made meanwhile.
                group.clear()


Unpacked = tuple[Piece, bytes]
"""A block, and its rows unpacked."""


class _Decoder:
    """Decodes blocks of one split."""

    def __init__(self, header: Header, name: str, spec: ReadSpec) -> None:
        self.header, self.spec, self.name = header, spec, name
        self.record = resolve(header.schema, name)
        names = list(self.record.children)
        asked = set(spec.columns.names)
        self.wanted = [n for n in names if n in asked] or names[:1]
        self.begin = container.header_bytes(self.record.simple, "null", _MARK) if self.record.columnar else b""
        self.rows = Rows(self.record)
        self.kept = 0

    def groups(self, file: IO[bytes], start: int, end: int, size: int) -> Iterator[list[Unpacked]]:
        """Blocks that are decoded together; those that cannot be unpacked, or may have to be cut, come alone."""
        group: list[Unpacked] = []
        packed = unpacked = rows = 0
        for piece in container.pieces(file, self.header.sync, start, end, size):
            piece, data = self._unpack(file, piece)
            length = piece.data[1] - piece.data[0]
            alone = (
                piece.damage
                or self.rows.layout.recursive
                or packed + length > BLOCK_BYTES
                or unpacked + len(data) > UNPACKED_BYTES
                or rows + piece.rows > BATCH_ROWS
                or self.rows.layout.memory(rows + piece.rows, unpacked + len(data)) > DECODED_BYTES
            )
            if group and alone:
                yield group
                group, packed, unpacked, rows = [], 0, 0, 0
            if piece.damage:
                yield [(piece, b"")]
                continue
            group.append((piece, data))
            packed, unpacked, rows = packed + length, unpacked + len(data), rows + piece.rows
            del data
            if unpacked > UNPACKED_BYTES:
                yield group
                group, packed, unpacked, rows = [], 0, 0, 0
        if group:
            yield group

    def read(
        self, file: IO[bytes], group: list[Unpacked], content: bytes | None, row: int
    ) -> Iterator[Block | RejectedRow]:
        """Decodes neighbouring blocks together, or one by one if that fails."""
        blocks = tuple(piece for piece, _ in group)
        if blocks[0].damage:
            yield from self._reject_block(file, blocks[0], row, blocks[0].damage)
            return
        rows, data = sum(piece.rows for piece in blocks), b"".join(data for _, data in group)
        offset = 0
        for part in self._parts(rows, data):
            try:
                if part.problem:
                    raise CorruptError(part.problem)
                batch = self.decode(part, data)
            except CorruptError as error:
                if len(group) > 1:
                    # A group is one part, so nothing of it has been given away.
                    for member in group:
                        yield from self.read(file, [member], content, row)
                        row = row + member[0].rows if row >= 0 else row
                    return
                if part.rows == rows:
                    yield from self._reject_block(file, blocks[0], row, str(error))
                else:
                    yield self._reject_part(blocks[0], part, data, row, offset, str(error))
            else:
                for begin in range(0, batch.num_rows, BATCH_ROWS):
                    first = row + offset + begin if row >= 0 else row
                    rest = batch.slice(begin, BATCH_ROWS)
                    origin = AvroOrigin(self.name, {"type": "avro"}, first, rest, None, content, self.header.raw)
                    origin.blocks, origin.offset, origin.known = blocks, offset + begin, (offset, part.start)
                    yield from emit(origin, self.spec)
            offset += part.rows

    def decode(self, part: Part, data: bytes) -> pa.RecordBatch:
        """The rows of a part as columns. Raises CorruptError."""
        if self.record.columnar:
            arrays = self._decode_columns(part.rows, data[part.start : part.end])
        else:
            try:
                records = self.rows.values(data, part.start, part.end, part.rows)
                arrays = [array_of([r[n] for r in records], self.record.children[n]) for n in self.wanted]
            except (*FAILURES, pa.ArrowException) as error:
                raise CorruptError(f"the block does not decode: {error!r}") from None
        return pa.RecordBatch.from_arrays(arrays, self.wanted)

    def _unpack(self, file: IO[bytes], piece: Piece) -> Unpacked:
        """A block's rows; a block that cannot be unpacked is damaged."""
        if piece.damage:
            return piece, b""
        try:
            if piece.data[1] - piece.data[0] > container.MAX_BLOCK_BYTES:
                raise CorruptError(f"it has more than {container.MAX_BLOCK_BYTES:,} bytes")
            return piece, container.decompress(self.header.codec, _content(file, piece))
        except CorruptError as error:
            return replace(piece, damage=str(error)), b""

    def _parts(self, rows: int, data: bytes) -> Iterator[Part]:
        least = self.rows.layout.shape.least
        if rows * least > len(data):
            problem = f"it says that it has {rows:,} rows of {least} bytes or more, in {len(data):,} bytes"
            return iter([Part(0, len(data), rows, problem)])
        return self.rows.parts(rows, data)

    def _decode_columns(self, rows: int, data: bytes) -> list[pa.Array]:
        import polars as pl

        failures = (OSError, ValueError, MemoryError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
        source = io.BytesIO(container.block_bytes(rows, data, _MARK, self.begin))
        try:
            table = pl.read_avro(source, columns=self.wanted).to_arrow()
        except failures as error:
            raise CorruptError(f"the block does not decode: {error}") from None
        if table.num_rows != rows:
            raise CorruptError(f"the block has {table.num_rows} rows, and says that it has {rows}")
        return [convert(pa.concat_arrays(table.column(n).chunks), self.record.children[n]) for n in self.wanted]

    def _reject_block(self, file: IO[bytes], piece: Piece, row: int, problem: str) -> Iterator[RejectedRow]:
        """One dead letter for a block that cannot be decoded: its bytes, as a container."""
        if not piece.rows:
            return
        file.seek(piece.start)
        raw = read_fully(file, self._room(piece.end - piece.start))
        message = f"{self.name}: the block of {piece.rows} rows at byte {piece.start} cannot be read: {problem}"
        if piece.rows > 1:
            message += "; this dead letter stands for all of its rows"
        cut = len(raw) < piece.end - piece.start
        payload = self.header.raw + raw if raw else b""
        position = _position(row, piece)
        yield RejectedRow(payload, position, message, truncated=cut, rows=believed_rows(piece.rows))

    def _reject_part(self, piece: Piece, part: Part, data: bytes, row: int, offset: int, problem: str) -> RejectedRow:
        """One dead letter for rows of a block."""
        room = self._room(part.end - part.start)
        raw = container.block_bytes(part.rows, data[part.start : part.start + room], self.header.sync)
        payload = container.header_bytes(self.header.schema, "null", self.header.sync) + raw if room else b""
        which = f"row {offset}" if part.rows == 1 else f"the {part.rows} rows from row {offset} on"
        message = f"{self.name}: {which} of the block at byte {piece.start} cannot be read: {problem}"
        if part.rows > 1:
            message += "; this dead letter stands for all of them"
        position = _position(row, piece) + offset
        cut = room < part.end - part.start
        return RejectedRow(payload, position, message, truncated=cut, rows=believed_rows(part.rows))

    def _room(self, wanted: int) -> int:
        """Bytes of a block that a dead letter keeps; the letters of a split keep MAX_PAYLOAD_BYTES together."""
        room = min(wanted, MAX_KEPT_BYTES) if self.kept < MAX_PAYLOAD_BYTES else 0
        self.kept += room + len(self.header.raw)
        return room


def _position(row: int, piece: Piece) -> int:
    return row if row >= 0 else piece.start << _ROW_BITS


def _content(file: IO[bytes], piece: Piece) -> bytes:
    file.seek(piece.data[0])
    return read_fully(file, piece.data[1] - piece.data[0])


def _open(file: str, content: bytes | None) -> IO[bytes]:
    if content is not None:
        return io.BytesIO(content)
    opened = open_input(file)
    return opened if is_remote(file) else cast(IO[bytes], io.BufferedReader(cast(io.FileIO, opened), 1 << 18))
