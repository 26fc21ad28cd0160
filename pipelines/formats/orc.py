"""ORC, by stripes, on pyarrow. Files are read only: nothing writes ORC.

pyarrow decodes a stripe as a whole. A file whose statistics say that it becomes much larger by that is read in one
piece instead, some rows at a time.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError
from pyarrow import orc

from inference.sizes import bounded
from pipelines.files import read_range
from pipelines.formats.base import FormatError, Reader, ReadSpec, Split
from pipelines.formats.orc_tail import Tail, file_footer, schema_with_times, tail_of, timestamps
from pipelines.formats.orc_times import StripeTimes, with_times
from pipelines.formats.table import (
    BATCH_BYTES,
    EXPANDED_BYTES,
    EXPANSION,
    READ_ERRORS,
    RereadOrigin,
    batch_rows,
    broken_file,
    emit,
    expands,
    grouped,
    is_corrupt,
    lost_rows,
    open_table,
    require_distinct,
    table_size,
    text_bytes,
)
from pipelines.rows import Block, RejectedRow

_TOO_DENSE = (
    "text and lists of {stored:,} bytes become more than {decoded:,}; they may become "
    f"{EXPANSION} times as much, or {EXPANDED_BYTES:,} bytes: write the file with less in it"
)


@dataclass
class OrcOrigin(RereadOrigin):
    """Rows of one stripe.

    Attributes:
      stripe: number of the stripe in the file.
      offset: row number, in the stripe, of the first row of the batch.
    """

    stripe: int = 0
    offset: int = 0

    def reread(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        with _open(self.file, self.content) as file:
            tail = tail_of(file, file.schema.names)
            if not tail.is_dense:
                yield -self.offset, file.read_stripe(self.stripe)
                return
        at = -self.first
        for batch in _dense_batches(self.file, self.content, file.schema.names, tail.rows_at_once):
            if at + batch.num_rows > 0:
                yield at, batch
            at += batch.num_rows

    def encode(self, row: pa.RecordBatch) -> bytes:
        sink = io.BytesIO()
        orc.write_table(pa.Table.from_batches([row]), sink)
        return sink.getvalue()


class OrcReader(Reader):
    """Reads the columns wanted, a stripe (64 MiB in most files) at a time."""

    unit = "stripes"

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        """The columns of `file`; none if it has no bytes."""
        return _footer(file)[0]

    @classmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        schema, stripes = _footer(file)
        reader = cls(ReadSpec(schema, options))
        for found in reader._read_stripes(file, None, 0, stripes):
            if isinstance(found, Block):
                return found.batch.slice(0, rows)
        return pa.RecordBatch.from_pylist([], schema=schema)

    def splits(self, file: str, size: int, split_bytes: int) -> list[Split]:
        if not size:
            return []
        try:
            with _open(file, None) as opened:
                tail = tail_of(opened, self._wanted(opened))
                sizes = [stripe.nbytes for stripe in tail.stripes]
                if tail.is_dense:
                    return [Split(file, 0, len(sizes), sum(sizes))]
        except READ_ERRORS as error:
            if not is_corrupt(error):
                raise
            return [Split(file, 0, 1, size)]
        return [Split(file, a, b, sum(sizes[a:b])) for a, b in grouped(sizes, split_bytes)]

    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        return self._read_stripes(split.file, None, split.start, split.end)

    def replay(self, payload: bytes, context: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        if payload:
            yield from self._read_stripes(name, payload, 0, None)

    def _read_stripes(
        self, name: str, content: bytes | None, start: int, end: int | None
    ) -> Iterator[Block | RejectedRow]:
        if start == end:
            return
        with ExitStack() as stack:
            try:
                file = stack.enter_context(_open(name, content))
                require_distinct(file.schema.names, name)
                names = self._wanted(file)
                tail = tail_of(file, names)
            except READ_ERRORS as error:
                if not is_corrupt(error):
                    raise
                size = table_size(content, name)
                said = str(error).removeprefix(f"{name}: ")
                message = said if isinstance(error, FormatError) else f"not a readable ORC file: {error}"
                yield broken_file(name, content, size, message)
                return
            stripes = tail.stripes
            if tail.is_dense:
                yield from self._read_dense(name, content, names, tail)
                return
            first = sum(stripe.rows for stripe in stripes[:start])
            for index in range(start, len(stripes) if end is None else min(end, len(stripes))):
                yield from self._read_stripe(file, names, name, content, index, first, stripes[index].rows)
                first += stripes[index].rows

    def _wanted(self, file: orc.ORCFile) -> list[str]:
        """The columns to read; without one, pyarrow would not count the rows."""
        names = list(file.schema.names)
        wanted = set(self.spec.columns.names)
        return [name for name in names if name in wanted] or names[:1]

    def _read_dense(
        self, name: str, content: bytes | None, names: list[str], tail: Tail
    ) -> Iterator[Block | RejectedRow]:
        """The rows of a file of which much is made of little, a few at a time."""
        at, decoded, reason = 0, 0, "it has fewer rows than its footer says"
        try:
            if expands(tail.items, tail.stored):
                raise FormatError(_TOO_DENSE.format(stored=tail.stored, decoded=tail.items))
            for batch in _dense_batches(name, content, names, tail.rows_at_once):
                for part in bounded(batch, BATCH_BYTES):
                    decoded += text_bytes(part)
                    if expands(decoded, tail.stored):
                        raise FormatError(_TOO_DENSE.format(stored=tail.stored, decoded=decoded))
                    yield from emit(OrcOrigin(name, {"type": "orc"}, at, part, None, content), self.spec)
                    at += part.num_rows
        except READ_ERRORS as error:
            if not is_corrupt(error):
                raise
            reason = str(error)
        yield from lost_rows(at, tail.rows - at, f"{name} cannot be read from its row {at} on: {reason}")

    def _read_stripe(
        self,
        file: orc.ORCFile,
        names: list[str],
        name: str,
        content: bytes | None,
        index: int,
        first: int,
        rows: int,
    ) -> Iterator[Block | RejectedRow]:
        try:
            stripes = _stripe(file, index, names, name, content)
        except READ_ERRORS as error:
            if not is_corrupt(error):
                raise
            yield from lost_rows(first, rows, f"{name}: stripe {index} cannot be read: {error}")
            return
        offset = 0
        for stripe in stripes:
            step = batch_rows(stripe.num_rows, stripe.nbytes)
            for begin in range(0, stripe.num_rows, step):
                batch = stripe.slice(begin, step)
                origin = OrcOrigin(name, {"type": "orc"}, first + offset, batch, None, content, index, offset)
                yield from emit(origin, self.spec)
                offset += batch.num_rows
        message = f"{name}: stripe {index} has fewer rows than its footer says"
        yield from lost_rows(first + offset, rows - offset, message)


@contextmanager
def _open(file: str, content: bytes | None) -> Iterator[orc.ORCFile]:
    with open_table(file, content) as source:
        yield orc.ORCFile(source)


def _stripe(file: orc.ORCFile, index: int, names: list[str], name: str, content: bytes | None) -> list[pa.RecordBatch]:
    """The rows of a stripe: in one batch, unless its times need more than one unit. Raises READ_ERRORS."""
    try:
        return [file.read_stripe(index, columns=names)]
    except pa.ArrowInvalid as error:
        footer = file_footer(file)
        numbers = {column: number for column, number in timestamps(footer).items() if column in names}
        if not numbers or "out of range for nanosecond" not in str(error):
            raise
        try:

            def read(start: int, count: int) -> bytes:
                return read_range(name, start, start + count) if content is None else content[start : start + count]

            stripe = StripeTimes(read, file.compression, footer.stripes[index])
            zones = {column: file.schema.field(column).type.tz for column in numbers}
            times = {column: stripe.column(number, zones[column]) for column, number in numbers.items()}
            others = [column for column in names if column not in numbers] or None
            rest = file.read_stripe(index, columns=others) if others else None
            return with_times(rest, times)
        except (IndexError, OverflowError, ValueError, DecodeError, zlib.error) as failure:
            raise FormatError(f"{error}; one by one: {failure}") from error


def _dense_batches(name: str, content: bytes | None, names: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a file, `rows` at a time. Raises READ_ERRORS."""
    from pyarrow import dataset

    with open_table(name, content) as source:
        fragment = dataset.OrcFileFormat().make_fragment(source)
        yield from fragment.to_batches(
            columns=names, batch_size=rows, use_threads=False, batch_readahead=0, fragment_readahead=0
        )


def _footer(file: str) -> tuple[pa.Schema, int]:
    """The columns of a file and the number of its stripes."""
    if not table_size(None, file):
        return pa.schema([]), 0
    try:
        with _open(file, None) as opened:
            require_distinct(opened.schema.names, file)
            return schema_with_times(opened), opened.nstripes
    except READ_ERRORS as error:
        if isinstance(error, FormatError) or not is_corrupt(error):
            raise
        raise FormatError(f"{file} is not a readable ORC file: {error}") from error
