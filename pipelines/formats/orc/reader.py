"""Reads ORC by stripes, on pyarrow in a process of its own. Nothing writes ORC.

pyarrow decodes a stripe as a whole. A file whose statistics say that it becomes much larger by that is read in one
piece instead, some rows at a time.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError
from pyarrow import orc

from inference.sizes import bounded
from pipelines.formats.base import FormatError, Reader, ReadSpec, Split
from pipelines.formats.orc.file import OrcFile, ReaderEnded
from pipelines.formats.orc.tail import Tail, file_footer, schema_with_times, tail_of, timestamps
from pipelines.formats.orc.times import StripeTimes, with_times
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
    require_distinct,
    table_size,
    text_bytes,
)
from pipelines.rows.origin import Block, RejectedRow
from pipelines.storage import read_range

MAX_ENDED = 8
"""Stripes of a piece of a file that may end pyarrow's reader, each after up to 20 s, before the rest is given up."""

_TOO_DENSE = (
    "text and lists of {stored:,} bytes become more than {decoded:,}; they may become "
    f"{EXPANSION} times as much, or {EXPANDED_BYTES:,} bytes: write the file with less in it"
)


@dataclass
class OrcOrigin(RereadOrigin):
    """Describes rows of one stripe.

    Attributes:
      stripe: number of the stripe in the file.
      offset: row number, in the stripe, of the first row of the batch.
    """

    stripe: int = 0
    offset: int = 0

    def reread(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        following = 0
        while following < self.batch.num_rows:
            # No file, and no process that reads one, is held until more is needed.
            pieces = self._pieces_from(following)
            if not pieces:
                return
            yield from pieces
            following = pieces[-1][0] + pieces[-1][1].num_rows

    def _pieces_from(self, index: int) -> list[tuple[int, pa.RecordBatch]]:
        """The rows of `batch` from row `index` on with all columns, as many as fit into memory."""
        found: list[tuple[int, pa.RecordBatch]] = []
        nbytes = 0
        with closing(OrcFile(self.file, self.content)) as file:
            names = file.schema.names
            tail = tail_of(file, names)
            if tail.is_dense:
                at, batches = -self.first, file.read_rows(tail.rows_at_once, names)
            else:
                at, batches = -self.offset, _stripe(file, self.stripe, names, self.file, self.content, tail)
            for batch in batches:
                if at + batch.num_rows > index:
                    found.append((at, batch))
                    nbytes += batch.nbytes
                at += batch.num_rows
                if at >= self.batch.num_rows or nbytes >= BATCH_BYTES:
                    break
        return found

    def encode(self, row: pa.RecordBatch) -> bytes:
        sink = io.BytesIO()
        orc.write_table(pa.Table.from_batches([row]), sink)
        return sink.getvalue()


_WRAPS = int(pa.__version__.split(".")[0]) < 25
"""Whether pyarrow reads times that nanoseconds do not hold as other times, and does not say so."""


class OrcReader(Reader):
    """Reads the columns wanted, a stripe (64 MiB in most files) at a time."""

    has_own_types = True
    unit = "stripes"

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        """Returns the columns of `file`; none if it has no bytes."""
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
            with closing(OrcFile(file, None)) as opened:
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
                file = stack.enter_context(closing(OrcFile(name, content)))
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
                yield from self._read_dense(file, name, content, names, tail)
                return
            end = len(stripes) if end is None else min(end, len(stripes))
            first, ended = sum(stripe.rows for stripe in stripes[:start]), 0
            for index in range(start, end):
                ended += yield from self._read_stripe(file, names, name, content, index, first, tail)
                first += stripes[index].rows
                if ended == MAX_ENDED:
                    rest = sum(stripe.rows for stripe in stripes[index + 1 : end])
                    message = f"{name}: {ended} of its stripes ended pyarrow's ORC reader; those after are not read"
                    yield from lost_rows(first, rest, message)
                    return

    def _wanted(self, file: OrcFile) -> list[str]:
        """The columns to read; without one, pyarrow would not count the rows."""
        names = list(file.schema.names)
        wanted = set(self.spec.columns.names)
        return [name for name in names if name in wanted] or names[:1]

    def _read_dense(
        self, file: OrcFile, name: str, content: bytes | None, names: list[str], tail: Tail
    ) -> Iterator[Block | RejectedRow]:
        """The rows of a file of which much is made of little, a few at a time."""
        at, decoded, reason = 0, 0, "it has fewer rows than its footer says"
        try:
            if expands(tail.items, tail.stored):
                raise FormatError(_TOO_DENSE.format(stored=tail.stored, decoded=tail.items))
            for batch in file.read_rows(tail.rows_at_once, names):
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
        file: OrcFile,
        names: list[str],
        name: str,
        content: bytes | None,
        index: int,
        first: int,
        tail: Tail,
    ) -> Generator[Block | RejectedRow, None, bool]:
        """The rows of a stripe. Returns whether it ended the process that read it."""
        ended = False
        rows, offset = tail.stripes[index].rows, 0
        reason = "it has fewer rows than its footer says"
        try:
            for batch in _stripe(file, index, names, name, content, tail):
                origin = OrcOrigin(name, {"type": "orc"}, first + offset, batch, None, content, index, offset)
                yield from emit(origin, self.spec)
                offset += batch.num_rows
        except READ_ERRORS as error:
            if not is_corrupt(error):
                raise
            reason, ended = str(error), isinstance(error, ReaderEnded)
        where = f" from its row {offset} on" if offset else ""
        yield from lost_rows(first + offset, rows - offset, f"{name}: stripe {index} cannot be read{where}: {reason}")
        return ended


def _stripe(
    file: OrcFile, index: int, names: list[str], name: str, content: bytes | None, tail: Tail
) -> Iterator[pa.RecordBatch]:
    """The rows of a stripe in batches; times are in more than one unit if they need it. Raises READ_ERRORS."""
    nbytes = tail.stripes[index].nbytes
    if _WRAPS and any(column in names for column in timestamps(file_footer(file))):
        yield from _with_own_times(file, index, names, name, content, nbytes, "pyarrow before 25 may change its times")
        return
    try:
        yield from file.read_stripe(index, nbytes, names)
    except pa.ArrowInvalid as error:
        if "out of range for nanosecond" not in str(error):
            raise
        yield from _with_own_times(file, index, names, name, content, nbytes, str(error))


def _with_own_times(
    file: OrcFile, index: int, names: list[str], name: str, content: bytes | None, nbytes: int, reason: str
) -> Iterator[pa.RecordBatch]:
    """The rows of a stripe, whose times pyarrow does not read. Raises FormatError with the reason why it does not."""
    footer = file_footer(file)
    numbers = {column: number for column, number in timestamps(footer).items() if column in names}
    if not numbers:
        raise FormatError(reason)
    try:

        def read(start: int, count: int) -> bytes:
            return read_range(name, start, start + count) if content is None else content[start : start + count]

        stripe = StripeTimes(read, file.compression, footer.stripes[index])
        zones = {column: file.schema.field(column).type.tz for column in numbers}
        times = {column: stripe.column(number, zones[column]) for column, number in numbers.items()}
        others = [column for column in names if column not in numbers]
        rest = pa.concat_batches(list(file.read_stripe(index, nbytes, others))) if others else None
        batches = with_times(rest, times)
    except (IndexError, OverflowError, ValueError, DecodeError, zlib.error) as failure:
        raise FormatError(f"{reason}; one by one: {failure}") from failure
    for batch in batches:
        step = batch_rows(batch.num_rows, batch.nbytes)
        for begin in range(0, batch.num_rows, step):
            yield batch.slice(begin, step)


def _footer(file: str) -> tuple[pa.Schema, int]:
    """The columns of a file and the number of its stripes."""
    if not table_size(None, file):
        return pa.schema([]), 0
    try:
        with closing(OrcFile(file, None)) as opened:
            require_distinct(opened.schema.names, file)
            return schema_with_times(opened), opened.nstripes
    except READ_ERRORS as error:
        if isinstance(error, FormatError) or not is_corrupt(error):
            raise
        raise FormatError(f"{file} is not a readable ORC file: {error}") from error
