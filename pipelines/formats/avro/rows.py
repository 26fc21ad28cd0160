"""Finds rows in the blocks of an Avro container, and decodes their values where polars does not know their types."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pipelines.formats.avro.container import CorruptError
from pipelines.formats.avro.schema import Node
from pipelines.formats.avro.shape import EndsError, Layout, TooLargeError
from pipelines.formats.limits import DECODED_BYTES
from pipelines.formats.table import BATCH_ROWS

FAILURES = (ValueError, EOFError, IndexError, OverflowError)
"""What fastavro raises for bytes that are no row of a schema."""

_STRIDES = (1024, 64, 8, 1)
_PART_BYTES = DECODED_BYTES // 4
_SEGMENT_BYTES = 4 << 20


@dataclass(frozen=True)
class RowsPart:
    """Describes neighbouring rows of a block that are decoded together.

    Attributes:
      start: offset of the first row in the block's unpacked bytes.
      end: offset after the last row.
      rows: number of rows.
      problem: why they cannot be decoded; empty if they can.
    """

    start: int
    end: int
    rows: int
    problem: str = ""


class Rows:
    """Finds and decodes rows of a schema."""

    def __init__(self, record: Node) -> None:
        self._simple = record.simple
        self.layout = Layout(record.simple, record.columnar)

    @cached_property
    def _schema(self) -> Any:
        import fastavro

        return fastavro.parse_schema(self._simple)

    @cached_property
    def _strides(self) -> list[tuple[int, Any]]:
        """Schemas of records that have so many rows for fields."""
        import fastavro

        name, found = self._simple["name"], []
        for count in _STRIDES:
            fields = [{"name": f"f{i}", "type": name if i else self._simple} for i in range(count)]
            found.append((count, fastavro.parse_schema({"type": "record", "name": "rows", "fields": fields})))
        return found

    @cached_property
    def _nothing(self) -> Any:
        import fastavro

        return fastavro.parse_schema({"type": "record", "name": "rows", "fields": []})

    def values(self, data: bytes, start: int, end: int, count: int) -> list[dict[str, Any]]:
        """Decodes rows; raises one of FAILURES. They have to be a part that `parts` gives without a problem."""
        import fastavro

        stream = io.BytesIO(data if (start, end) == (0, len(data)) else data[start:end])
        return [cast(dict[str, Any], fastavro.schemaless_reader(stream, self._schema, None)) for _ in range(count)]

    def parts(self, rows: int, data: bytes) -> Iterator[RowsPart]:
        """Cuts the rows of a block into parts that can be decoded in a bounded memory."""
        if self.layout.recursive:
            return self._joined(self._measured(data, rows))
        if self.layout.memory(rows, len(data)) <= DECODED_BYTES:
            return iter([RowsPart(0, len(data), rows)])
        return self._joined(self._skipped(data, rows))

    def ends(self, data: bytes, start: int, rows: int) -> npt.NDArray[np.int64]:
        """Offsets of `rows` rows that begin at `start`, and of the end of the last one. Raises CorruptError."""
        found = [start]
        for _ in range(rows):
            found.append(self._end(data, found[-1], -1))
        return np.array(found, np.int64)

    def skip(self, data: bytes, start: int, rows: int) -> int:
        """Returns the offset after `rows` rows that begin at `start`. Raises CorruptError."""
        while rows:
            stride = -1 if self.layout.recursive else next(i for i, n in enumerate(_STRIDES) if n <= rows)
            start = self._end(data, start, stride)
            rows -= _STRIDES[stride]
        return start

    def _end(self, data: bytes, start: int, stride: int) -> int:
        if not self.layout.recursive:
            return self._skip(io.BytesIO(data), start, stride)
        try:
            return self.layout.measure(data, start)[0]
        except TooLargeError as error:
            if error.end is None:
                raise CorruptError(str(error)) from None
            return error.end

    def _skip(self, stream: io.BytesIO, start: int, stride: int) -> int:
        """The offset after a stride's rows; a length that goes beyond the end stops there. Raises CorruptError."""
        import fastavro

        stream.seek(start)
        try:
            # With no field in the reader's schema nothing of the writer's is kept.
            fastavro.schemaless_reader(stream, self._strides[stride][1], self._nothing)
        except FAILURES as error:
            raise CorruptError(f"the rows end before their block says: {error!r}") from None
        return stream.tell()

    def _skipped(self, data: bytes, rows: int) -> Iterator[tuple[RowsPart, int]]:
        """Runs of rows of a type that is not recursive, with the memory that each run takes."""
        # Rows are skipped within a segment of the block, so that no try takes long.
        base, segment = 0, data[:_SEGMENT_BYTES]
        at, stride = 0, 0
        while rows:
            while _STRIDES[stride] > rows:
                stride += 1
            count, end = _STRIDES[stride], 0
            if at - base < len(segment):
                try:
                    end = base + self._skip(io.BytesIO(segment), at - base, stride)
                except CorruptError:
                    end = 0
            last = base + len(segment) == len(data)
            if (not end or end - base == len(segment)) and not last and at > base:
                base, segment = at, data[at : at + _SEGMENT_BYTES]
                continue
            known = end and (last or end - base < len(segment))
            memory = self.layout.memory(count, end - at) if known else DECODED_BYTES + 1
            if memory <= (_PART_BYTES if count > 1 else DECODED_BYTES):
                yield RowsPart(at, end, count), memory
                at, rows, stride = end, rows - count, max(stride - 1, 0)
            elif count > 1:
                stride += 1
            else:
                for part, memory in self._one(data, at, rows):
                    yield part, memory
                    at, rows = part.end, rows - part.rows

    def _measured(self, data: bytes, rows: int) -> Iterator[tuple[RowsPart, int]]:
        """Rows of a recursive type one by one, with the memory that each takes."""
        at = 0
        while rows:
            for part, memory in self._one(data, at, rows):
                yield part, memory
                at, rows = part.end, rows - part.rows

    def _one(self, data: bytes, at: int, rows: int) -> Iterator[tuple[RowsPart, int]]:
        """The row at `at`, or all that are left if it is not known where it ends."""
        try:
            end, memory = self.layout.measure(data, at)
            yield RowsPart(at, end, 1), memory
        except TooLargeError as error:
            yield RowsPart(at, error.end or len(data), 1 if error.end else rows, str(error)), 0
        except EndsError as error:
            yield RowsPart(at, len(data), rows, str(error)), 0

    @staticmethod
    def _joined(runs: Iterator[tuple[RowsPart, int]]) -> Iterator[RowsPart]:
        """Joins neighbours while they take at most _PART_BYTES together."""
        whole, memory = RowsPart(0, 0, 0), 0
        for part, more in runs:
            if part.problem or memory + more > _PART_BYTES or whole.rows + part.rows > BATCH_ROWS:
                if whole.rows:
                    yield whole
                whole, memory = RowsPart(part.start, part.start, 0), 0
            if part.problem:
                yield part
                whole = RowsPart(part.end, part.end, 0)
            else:
                whole, memory = RowsPart(whole.start, part.end, whole.rows + part.rows), memory + more
        if whole.rows:
            yield whole
