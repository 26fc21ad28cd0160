"""ORC, by stripes, on pyarrow. Files are read only: nothing writes ORC."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import orc

from model.proto_subset import build_messages
from pipelines.formats.base import FormatError, Reader, ReadSpec, Split
from pipelines.formats.table import (
    READ_ERRORS,
    RereadOrigin,
    batch_rows,
    broken_file,
    emit,
    grouped,
    is_corrupt,
    lost_rows,
    open_table,
    table_size,
)
from pipelines.rows import Block, RejectedRow

# Field numbers are those of https://orc.apache.org/specification/ORCv1 and of the C++ reader's FileTail.
_FileTail = build_messages(
    "pipelines.orc",
    {
        "StripeInformation": [
            ("indexLength", 2, "int64"),
            ("dataLength", 3, "int64"),
            ("footerLength", 4, "int64"),
            ("numberOfRows", 5, "int64"),
        ],
        "Footer": [("stripes", 3, "repeated StripeInformation")],
        "FileTail": [("footer", 2, "Footer")],
    },
)["FileTail"]


@dataclass(frozen=True)
class Stripe:
    """What the footer says of a stripe: its number of rows, and bytes in the file."""

    rows: int
    nbytes: int


@dataclass
class OrcOrigin(RereadOrigin):
    """Rows of one stripe.

    Attributes:
      stripe: number of the stripe in the file.
      offset: row number, in the stripe, of the first row of the batch.
    """

    stripe: int = 0
    offset: int = 0

    def reread(self) -> pa.RecordBatch:
        with _open(self.file, self.content) as file:
            batch = file.read_stripe(self.stripe)
        if batch.num_rows < self.offset + self.batch.num_rows:
            raise OSError(f"{self.file} has changed")
        return batch.slice(self.offset, self.batch.num_rows)

    def encode(self, row: pa.RecordBatch) -> bytes:
        sink = io.BytesIO()
        orc.write_table(pa.Table.from_batches([row]), sink)
        return sink.getvalue()


class OrcReader(Reader):
    """Reads the columns wanted, a stripe at a time.

    A stripe (64 MiB in most files) is decoded as a whole: pyarrow offers nothing smaller.
    """

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
                sizes = [stripe.nbytes for stripe in _stripes(opened)]
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
                stripes, names = _stripes(file), list(file.schema.names)
            except READ_ERRORS as error:
                if not is_corrupt(error):
                    raise
                size = table_size(content, name)
                yield broken_file(name, content, size, f"not a readable ORC file: {error}")
                return
            for index in range(start, len(stripes) if end is None else min(end, len(stripes))):
                first = sum(stripe.rows for stripe in stripes[:index])
                yield from self._read_stripe(file, names, name, content, index, first, stripes[index].rows)

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
        # Without a column to read, pyarrow does not count the rows.
        asked = set(self.spec.columns.names)
        wanted = [n for n in names if n in asked] or names[:1]
        try:
            stripe = file.read_stripe(index, columns=wanted)
        except READ_ERRORS as error:
            if not is_corrupt(error):
                raise
            yield from lost_rows(first, rows, f"{name}: stripe {index} cannot be read: {error}")
            return
        step = batch_rows(stripe.num_rows, stripe.nbytes)
        for offset in range(0, stripe.num_rows, step):
            batch = stripe.slice(offset, step)
            origin = OrcOrigin(name, {"type": "orc"}, first + offset, batch, None, content, index, offset)
            yield from emit(origin, self.spec)
        message = f"{name}: stripe {index} has fewer rows than its footer says"
        yield from lost_rows(first + stripe.num_rows, rows - stripe.num_rows, message)


@contextmanager
def _open(file: str, content: bytes | None) -> Iterator[orc.ORCFile]:
    with open_table(file, content) as source:
        yield orc.ORCFile(source)


def _stripes(file: orc.ORCFile) -> list[Stripe]:
    tail = _FileTail.FromString(bytes(file.reader.serialized_file_tail()))
    return [
        Stripe(stripe.numberOfRows, stripe.indexLength + stripe.dataLength + stripe.footerLength)
        for stripe in tail.footer.stripes
    ]


def _footer(file: str) -> tuple[pa.Schema, int]:
    """The columns of a file and the number of its stripes."""
    if not table_size(None, file):
        return pa.schema([]), 0
    try:
        with _open(file, None) as opened:
            return opened.schema.remove_metadata(), opened.nstripes
    except READ_ERRORS as error:
        if not is_corrupt(error):
            raise
        raise FormatError(f"{file} is not a readable ORC file: {error}") from error
