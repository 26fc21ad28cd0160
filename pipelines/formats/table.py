"""Does what the formats of whole tables (Parquet, ORC, Avro) share: rows that have no bytes of their own.

Their rows are dead-lettered as a document of one row in the format itself, made only when one is needed.
"""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from inference.sizes import decoded_bytes
from pipelines.formats.base import MAX_PAYLOAD_BYTES, FormatError, ReadSpec
from pipelines.formats.output_values import key_texts
from pipelines.rows.origin import Block, Origin, Positions, RejectedRow
from pipelines.storage import is_remote, open_input, read_range

BATCH_ROWS = 65_536
"""Rows of the largest record batch that a reader of tables emits."""

BATCH_BYTES = 64 << 20
"""Decoded bytes that a record batch should not exceed; wide rows come in smaller batches."""


READ_ERRORS = (OSError, ValueError, MemoryError, pa.ArrowException)
"""What pyarrow raises for a file that it cannot read; a corrupt length can ask for all memory."""

MAX_LOST_ROWS = 100_000_000
"""Unreadable rows that a file is believed to have in one place; a count beyond it is itself taken for corrupt."""

EXPANDED_BYTES = 256 << 20
EXPANSION = 1000
"""What a piece of a file may always become by being decoded, and how many times its bytes in the file beyond that."""


@dataclass
class TableOrigin(Origin):
    """Describes where the rows of a batch are in a table file.

    Attributes:
      file: the file's path.
      format: `{"type": <the format>}`.
      first: row number, in the file, of the first row of the batch as it was read.
      batch: the batch as it was read, before rows were taken out and columns chosen.
      kept: row number in `batch` of each row of the emitted batch; None if all were kept.
      content: the whole file, where it has no path (the payload of a dead letter).
    """

    file: str
    format: dict[str, Any]
    first: int
    batch: pa.RecordBatch
    kept: Positions | None = None
    content: bytes | None = None

    def positions(self) -> Positions:
        kept = np.arange(self.batch.num_rows, dtype=np.int64) if self.kept is None else self.kept
        return self.numbers(kept)

    def payload(self, row: int) -> bytes:
        return self.document(row if self.kept is None else int(self.kept[row]))

    def numbers(self, indices: Positions) -> Positions:
        """Returns the positions in the file of rows of `batch`."""
        return indices + self.first

    @abstractmethod
    def document(self, index: int) -> bytes:
        """Writes row `index` of `batch`, with every column that the file has, as a file of one row."""


@dataclass
class RereadOrigin(TableOrigin):
    """Reads the rows of an origin a second time, with all columns, when one of them is asked for."""

    def __post_init__(self) -> None:
        self._pieces: Iterator[tuple[int, pa.RecordBatch]] | None = None
        self._piece: tuple[int, pa.RecordBatch] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pieces": None, "_piece": None}

    def document(self, index: int) -> bytes:
        try:
            first, piece = self._piece_with(index)
        except READ_ERRORS:
            # The file is gone or has changed since: the columns in memory are what is left of the row.
            first, piece = self._piece = 0, self.batch
        return self.encode(piece.slice(index - first, 1))

    def _piece_with(self, index: int) -> tuple[int, pa.RecordBatch]:
        """The piece that holds a row of `batch`, and the row number in `batch` of its first row."""
        if self._piece is None or index < self._piece[0]:
            self._pieces = self.reread()
            self._piece = None
        while self._piece is None or index >= self._piece[0] + self._piece[1].num_rows:
            if self._pieces is None or (following := next(self._pieces, None)) is None:
                raise OSError(f"{self.file} has fewer rows than before")
            self._piece = following
        return self._piece

    @abstractmethod
    def reread(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Returns the rows of `batch` with all columns, from the file, in pieces that fit into memory.

        Each comes with the row number in `batch` of its first row, which may be negative.
        """

    @abstractmethod
    def encode(self, row: pa.RecordBatch) -> bytes:
        """Returns a file in the source's own format that holds `row`."""


def open_table(file: str, content: bytes | None) -> pa.NativeFile:
    """Opens a file (or its content, where it has no path) as pyarrow wants it."""
    if content is not None:
        return pa.BufferReader(content)
    if is_remote(file):
        return pa.PythonFile(open_input(file), mode="r")
    # Read, not mapped: a mapped file that is cut short meanwhile would kill the process.
    return pa.OSFile(os.fsencode(file), "r")


def require_distinct(names: Sequence[str], file: str) -> None:
    """Raises FormatError if two columns of a file have the same name."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise FormatError(f"{file}: column {twice[0]!r} appears twice; rename one of the two in the file")


def is_corrupt(error: Exception) -> bool:
    """Tells whether one of READ_ERRORS is about a file's content, and not about reaching it."""
    if isinstance(error, OSError):
        return error.errno is None and not isinstance(error, (ConnectionError, TimeoutError))
    return True


def conform(batch: pa.RecordBatch, columns: pa.Schema) -> pa.RecordBatch:
    """Returns the columns asked for, in that order, with the types they have in `batch`; nulls where it has none."""
    arrays, fields = [], []
    for field in columns:
        found = batch.schema.get_all_field_indices(field.name)
        array = batch.column(found[0]) if found else pa.nulls(batch.num_rows, field.type)
        arrays.append(array)
        fields.append(pa.field(field.name, array.type))
    # A batch without columns would forget its number of rows.
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)) if arrays else batch.select([])


def emit(origin: TableOrigin, spec: ReadSpec) -> Iterator[Block | RejectedRow]:
    """Yields the rows of `origin.batch`: a block of those with valid values, and one by one those without."""
    batch = origin.batch
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        bad = invalid_rows(batch)
        rows = np.fromiter(bad, np.int64)
        for index, position in zip(bad, origin.numbers(rows).tolist(), strict=True):
            yield RejectedRow(origin.document(index), position, bad[index], key=_key(batch, spec.key, index))
        origin.kept = np.setdiff1d(np.arange(batch.num_rows, dtype=np.int64), rows)
        batch = _take(batch, origin.kept)
    if batch.num_rows:
        yield Block(origin, conform(batch, spec.columns))


def _key(batch: pa.RecordBatch, name: str | None, row: int) -> str | None:
    """The key of a row that has an invalid value somewhere, unless that is the key."""
    if name is None or name not in batch.schema.names:
        return None
    # Taken out of its column, of which another value may be invalid.
    found = key_texts(batch[name].slice(row, 1))
    return found[0]


def invalid_rows(batch: pa.RecordBatch) -> dict[int, str]:
    """Returns what is wrong with each row that holds an invalid value (such as a string that is not UTF-8)."""
    found: dict[int, str] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for index, message in _invalid_values(values, 0):
            found.setdefault(index, f'column "{name}": {message}')
    return dict(sorted(found.items()))


def lost_rows(first: int, count: int, message: str) -> Iterator[RejectedRow]:
    """Returns rows that a file promises and cannot give, as one dead letter without bytes that stands for all
    of them.
    """
    if count > 0:
        yield RejectedRow(b"", first, f"{message} ({count:,} rows)", truncated=True, rows=believed_rows(count))


def believed_rows(count: int) -> int:
    """Returns how many rows an unreadable stretch of a file counts as, if the file says that it has `count`."""
    return count if count <= MAX_LOST_ROWS else 1


def expands(decoded: int, stored: int) -> bool:
    """Tells whether text and lists become so large by being decoded that the file is taken for hostile."""
    return decoded > EXPANDED_BYTES and decoded > EXPANSION * stored


def text_bytes(batch: pa.RecordBatch) -> int:
    """Returns the decoded bytes of those columns of a batch whose values differ in length."""
    kinds = enumerate(batch.schema.types)
    return sum(decoded_bytes(batch.column(index)) for index, type in kinds if not _is_fixed(type))


def _is_fixed(type: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(type) or pa.types.is_null(type))


def broken_file(file: str, content: bytes | None, size: int, message: str) -> RejectedRow:
    """Returns a file that cannot be read at all, as one dead letter that holds its bytes."""
    payload = read_range(file, 0, min(size, MAX_PAYLOAD_BYTES)) if content is None else content
    return RejectedRow(payload, 0, f"{file}: {message}", truncated=len(payload) < size)


def batch_rows(rows: int, nbytes: int) -> int:
    """Returns rows of a batch, where `rows` rows take `nbytes`."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(nbytes, 1)))


def grouped(sizes: list[int], split_bytes: int) -> Iterator[tuple[int, int]]:
    """Yields neighbouring pieces of the sizes given, in runs `(start, end)` of about `split_bytes`."""
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and total + size > split_bytes:
            yield start, index
            start, total = index, 0
        total += size
    if sizes:
        yield start, len(sizes)


def table_size(content: bytes | None, file: str) -> int:
    """Returns the bytes of a file."""
    if content is not None:
        return len(content)
    with open_input(file) as opened:
        return opened.seek(0, io.SEEK_END)


def _invalid_values(values: pa.Array, start: int) -> Iterator[tuple[int, str]]:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        if len(values) == 1:
            yield start, str(error)
            return
        half = len(values) // 2
        # take, not slice: a list's validity is checked with all the values that its slices share.
        yield from _invalid_values(values.take(pa.array(range(half))), start)
        yield from _invalid_values(values.take(pa.array(range(half, len(values)))), start + half)


def _take(batch: pa.RecordBatch, rows: Positions) -> pa.RecordBatch:
    columns = []
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            # The dictionary holds the invalid values too, until it is made again.
            kept = column.dictionary_decode().take(pa.array(rows))
            columns.append(kept.dictionary_encode().cast(column.type))
        else:
            columns.append(column.take(pa.array(rows)))
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
