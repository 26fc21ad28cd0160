"""Reads the end of an ORC file: its stripes and types, and what it says of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError

from model.proto_subset import build_messages
from pipelines.formats.orc.file import OrcFile
from pipelines.formats.orc.times import TIMESTAMP_KINDS
from pipelines.formats.table import batch_rows

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


@dataclass(frozen=True)
class Stripe:
    """Describes what the footer says of a stripe: its number of rows, and bytes in the file."""

    rows: int
    nbytes: int


@dataclass(frozen=True)
class Tail:
    """Describes what the end of a file says of it.

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
        """Returns the bytes of all stripes."""
        return sum(stripe.nbytes for stripe in self.stripes)

    @property
    def rows(self) -> int:
        """Returns rows of all stripes."""
        return sum(stripe.rows for stripe in self.stripes)

    @property
    def is_dense(self) -> bool:
        """Tells whether stripes may become too large to be decoded as a whole."""
        return self.decoded > MAX_STRIPES_BYTES and self.decoded > MAX_STRIPES_RATIO * self.stored

    @property
    def rows_at_once(self) -> int:
        """Returns rows to decode at a time, where stripes are not decoded as a whole."""
        return max(1, batch_rows(self.rows, self.decoded) // _CAUTION)


def timestamps(footer: Any) -> dict[str, int]:
    """Returns names of the columns of timestamps, and their numbers in the tree of types."""
    if not footer.types:
        return {}
    pairs = zip(footer.types[0].fieldNames, footer.types[0].subtypes, strict=False)
    return {name: number for name, number in pairs if footer.types[number].kind in TIMESTAMP_KINDS}


def schema_with_times(file: OrcFile) -> pa.Schema:
    """Returns the columns of a file; times are in microseconds where its statistics say that nanoseconds do not hold
    them.
    """
    schema = file.schema.remove_metadata()
    try:
        footer = file_footer(file)
    except pa.ArrowInvalid:
        # pyarrow reads it nevertheless.
        return schema
    for name, number in timestamps(footer).items():
        if number >= len(footer.statistics):
            continue
        of = footer.statistics[number].timestampStatistics
        limits = (of.minimum, of.maximum, of.minimumUtc, of.maximumUtc)
        if any(abs(limit >> 1 ^ -(limit & 1)) >= _MAX_MILLISECONDS for limit in limits):
            place = schema.get_field_index(name)
            schema = schema.set(place, pa.field(name, pa.timestamp("us", schema.field(name).type.tz)))
    return schema


def file_footer(file: OrcFile) -> Any:
    """Reads what stands at the end of a file. Raises pa.ArrowInvalid."""
    try:
        return _FileTail.FromString(file.tail).footer
    except DecodeError as error:
        raise pa.ArrowInvalid(f"the footer cannot be read: {error}") from None


def tail_of(file: OrcFile, names: list[str]) -> Tail:
    """Reads what the end of a file says of its stripes and columns."""
    footer = file_footer(file)
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
