"""Decodes the blocks of a split of an Avro file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

import pyarrow as pa

from pipelines.formats.avro import container
from pipelines.formats.avro.container import CorruptError, Header, Piece
from pipelines.formats.avro.origin import AvroOrigin, content_of, position_of
from pipelines.formats.avro.rows import FAILURES, Rows, RowsPart
from pipelines.formats.avro.schema import array_of, convert, resolve
from pipelines.formats.base import BLOCK_BYTES, MAX_PAYLOAD_BYTES, ReadSpec
from pipelines.formats.limits import DECODED_BYTES, MAX_KEPT_BYTES, UNPACKED_BYTES
from pipelines.formats.table import (
    BATCH_ROWS,
    believed_rows,
    emit,
)
from pipelines.rows.origin import Block, RejectedRow
from pipelines.storage import read_fully

_MARK = bytes(container.SYNC_BYTES)


Unpacked = tuple[Piece, bytes]
"""A block, and its rows unpacked."""


class Decoder:
    """Decodes blocks of one split."""

    def __init__(self, header: Header, name: str, spec: ReadSpec) -> None:
        self.header, self.spec, self.name = header, spec, name
        self.record = resolve(header.schema, name)
        names = list(self.record.children)
        wanted = set(spec.columns.names)
        self.wanted = [n for n in names if n in wanted] or names[:1]
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

    def decode(self, part: RowsPart, data: bytes) -> pa.RecordBatch:
        """Returns the rows of a part as columns. Raises CorruptError."""
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
            return piece, container.decompress(self.header.codec, content_of(file, piece))
        except CorruptError as error:
            return replace(piece, damage=str(error)), b""

    def _parts(self, rows: int, data: bytes) -> Iterator[RowsPart]:
        least = self.rows.layout.shape.least
        if rows * least > len(data):
            problem = f"it says that it has {rows:,} rows of {least} bytes or more, in {len(data):,} bytes"
            return iter([RowsPart(0, len(data), rows, problem)])
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
        position = position_of(row, piece)
        yield RejectedRow(payload, position, message, truncated=cut, rows=believed_rows(piece.rows))

    def _reject_part(
        self, piece: Piece, part: RowsPart, data: bytes, row: int, offset: int, problem: str
    ) -> RejectedRow:
        """One dead letter for rows of a block."""
        room = self._room(part.end - part.start)
        raw = container.block_bytes(part.rows, data[part.start : part.start + room], self.header.sync)
        payload = container.header_bytes(self.header.schema, "null", self.header.sync) + raw if room else b""
        which = f"row {offset}" if part.rows == 1 else f"the {part.rows} rows from row {offset} on"
        message = f"{self.name}: {which} of the block at byte {piece.start} cannot be read: {problem}"
        if part.rows > 1:
            message += "; this dead letter stands for all of them"
        position = position_of(row, piece) + offset
        cut = room < part.end - part.start
        return RejectedRow(payload, position, message, truncated=cut, rows=believed_rows(part.rows))

    def _room(self, wanted: int) -> int:
        """Bytes of a block that a dead letter keeps; the letters of a split keep MAX_PAYLOAD_BYTES together."""
        room = min(wanted, MAX_KEPT_BYTES) if self.kept < MAX_PAYLOAD_BYTES else 0
        self.kept += room + len(self.header.raw)
        return room
