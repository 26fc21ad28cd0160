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
from model.proto_subset import build_messages
from pipelines.files import read_range
from pipelines.formats.base import FormatError, Reader, ReadSpec, Split
from pipelines.formats.orc_times import TIMESTAMP_KINDS, StripeTimes, with_times
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

MAX_STRIPES_BYTES = 256 << 20
MAX_STRIPES_RATIO = 32
"""Decoded bytes of a file that is always read by stripes, and how many times its bytes in the file beyond that."""

_MAX_MILLISECONDS = (2**63 - 1) // 10**6
"""Milliseconds that nanoseconds of 64 bits can hold."""

_CAUTION = 16
"""Times that rows of one place of a file may be larger than its rows are on average."""

# Field numbers are those of https://orc.apache.org/specification/ORCv1 and of the C++ reader's FileTail.
_FileTail = build_messages(
    "pipelines.orc",
    {
        "StripeInformation": [
            ("offset", 1, "int64"),
            ("indexLength", 2, "int64"),
            ("dataLength", 3, "int64"),
            ("footerLength", 4, "int64"),
            ("numberOfRows", 5, "int64"),
        ],
        "Type": [("kind", 1, "int64"), ("subtypes", 2, "repeated int64"), ("fieldNames", 3, "repeated string")],
        # Sums and times, in milliseconds, are zigzag-coded.
        "StringStatistics": [("sum", 3, "int64")],
        "BinaryStatistics": [("sum", 1, "int64")],
        "TimestampStatistics": [
            ("minimum", 1, "int64"),
            ("maximum", 2, "int64"),
            ("minimumUtc", 3, "int64"),
            ("maximumUtc", 4, "int64"),
        ],
        "ColumnStatistics": [
            ("numberOfValues", 1, "int64"),
            ("stringStatistics", 4, "StringStatistics"),
            ("binaryStatistics", 8, "BinaryStatistics"),
            ("timestampStatistics", 9, "TimestampStatistics"),
        ],
        "Footer": [
            ("stripes", 3, "repeated StripeInformation"),
            ("types", 4, "repeated Type"),
            ("statistics", 7, "repeated ColumnStatistics"),
        ],
        "FileTail": [("footer", 2, "Footer")],
    },
)["FileTail"]


_TOO_DENSE = (
    "text and lists of {stored:,} bytes become more than {decoded:,}; they may become "
    f"{EXPANSION} times as much, or {EXPANDED_BYTES:,} bytes: write the file with less in it"
)


@dataclass(frozen=True)
class Stripe:
    """What the footer says of a stripe: its number of rows, and bytes in the file."""

    rows: int
    nbytes: int


@dataclass(frozen=True)
class Tail:
    """What the end of a file says of it.

    Attributes:
      stripes: its stripes.
      decoded: bytes that the columns wanted become.
      items: those of them that are in lists.
    """

    stripes: tuple[Stripe, ...]
    decoded: int
    items: int

    @property
    def stored(self) -> int:
        """Bytes of all stripes."""
        return sum(stripe.nbytes for stripe in self.stripes)

    @property
    def rows(self) -> int:
        """Rows of all stripes."""
        return sum(stripe.rows for stripe in self.stripes)

    @property
    def is_dense(self) -> bool:
        """Whether stripes may become too large to be decoded as a whole."""
        return self.decoded > MAX_STRIPES_BYTES and self.decoded > MAX_STRIPES_RATIO * self.stored

    @property
    def rows_at_once(self) -> int:
        """Rows to decode at a time, where stripes are not decoded as a whole."""
        return max(1, batch_rows(self.rows, self.decoded) // _CAUTION)


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
            tail = _tail(file, file.schema.names)
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
                tail = _tail(opened, self._wanted(opened))
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
                tail = _tail(file, names)
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
        footer = _file_footer(file)
        numbers = {column: number for column, number in _timestamps(footer).items() if column in names}
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


def _timestamps(footer: Any) -> dict[str, int]:
    """Names of the columns of timestamps, and their numbers in the tree of types."""
    if not footer.types:
        return {}
    pairs = zip(footer.types[0].fieldNames, footer.types[0].subtypes, strict=False)
    return {name: number for name, number in pairs if footer.types[number].kind in TIMESTAMP_KINDS}


def _with_times(file: orc.ORCFile) -> pa.Schema:
    """The columns of a file; times are in microseconds where its statistics say that nanoseconds do not hold them."""
    schema, footer = file.schema.remove_metadata(), _file_footer(file)
    for name, number in _timestamps(footer).items():
        if number >= len(footer.statistics):
            continue
        of = footer.statistics[number].timestampStatistics
        limits = (of.minimum, of.maximum, of.minimumUtc, of.maximumUtc)
        if any(abs(limit >> 1 ^ -(limit & 1)) >= _MAX_MILLISECONDS for limit in limits):
            place = schema.get_field_index(name)
            schema = schema.set(place, pa.field(name, pa.timestamp("us", schema.field(name).type.tz)))
    return schema


def _file_footer(file: orc.ORCFile) -> Any:
    return _FileTail.FromString(bytes(file.reader.serialized_file_tail())).footer


def _tail(file: orc.ORCFile, names: list[str]) -> Tail:
    footer = _file_footer(file)
    stripes = tuple(
        Stripe(stripe.numberOfRows, stripe.indexLength + stripe.dataLength + stripe.footerLength)
        for stripe in footer.stripes
    )
    decoded = items = 0
    if footer.types:
        # Types are numbered in the order of a walk through the tree of them.
        starts = [*footer.types[0].subtypes, len(footer.types)]
        for name, start, end in zip(footer.types[0].fieldNames, starts, starts[1:], strict=False):
            if name in names:
                sizes = [_column_bytes(statistics) for statistics in footer.statistics[start:end]]
                decoded += sum(sizes)
                items += sum(sizes[1:])
    return Tail(stripes, decoded, items)


def _column_bytes(statistics: Any) -> int:
    text = (int(statistics.stringStatistics.sum or statistics.binaryStatistics.sum)) & (1 << 64) - 1
    return 8 * max(int(statistics.numberOfValues), 0) + max(text >> 1 ^ -(text & 1), 0)


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
            return _with_times(opened), opened.nstripes
    except READ_ERRORS as error:
        if isinstance(error, FormatError) or not is_corrupt(error):
            raise
        raise FormatError(f"{file} is not a readable ORC file: {error}") from error
