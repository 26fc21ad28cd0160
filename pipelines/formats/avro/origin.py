"""Says where rows of Avro files come from."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa

from pipelines.formats.avro import container
from pipelines.formats.avro.container import Header, Piece
from pipelines.formats.avro.rows import Rows
from pipelines.formats.avro.schema import resolve
from pipelines.formats.avro.writer import AvroWriter
from pipelines.formats.table import (
    TableOrigin,
)
from pipelines.rows.origin import Positions
from pipelines.storage import is_remote, open_input, read_fully

ROW_BITS = 20


@dataclass
class AvroOrigin(TableOrigin):
    """Describes rows of neighbouring blocks.

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
        starts = np.array([(piece.start << ROW_BITS) + piece.rows for piece in self.blocks], np.int64)
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
        with open_container(self.file, self.content) as file:
            data = container.decompress(header.codec, content_of(file, self.blocks[number]))
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


def position_of(row: int, piece: Piece) -> int:
    """Returns the position of a row: its number, or where it is unknown one made of its block's place."""
    return row if row >= 0 else piece.start << ROW_BITS


def content_of(file: IO[bytes], piece: Piece) -> bytes:
    """Reads a block, as it is in the file."""
    file.seek(piece.data[0])
    return read_fully(file, piece.data[1] - piece.data[0])


def open_container(file: str, content: bytes | None) -> IO[bytes]:
    """Opens a file, or the content of one that is in memory."""
    if content is not None:
        return io.BytesIO(content)
    opened = open_input(file)
    return opened if is_remote(file) else cast(IO[bytes], io.BufferedReader(cast(io.FileIO, opened), 1 << 18))
