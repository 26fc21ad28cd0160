"""Reads files whose rows are lines of text: blocks of whole rows, and bad rows found by bisecting.

A block is parsed as a whole by a vectorised parser. Only when that fails are its rows told apart (with
numpy), and the failing ones found by parsing halves. So a bad row costs a few parses, a good block none.
"""

from __future__ import annotations

import functools
import itertools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from inference.columns.coercion import coerce
from pipelines import storage
from pipelines.formats.base import MAX_BLOCK_ROWS, MAX_ROW_BYTES, Reader, Split
from pipelines.formats.dialect import Dialect, Spans
from pipelines.formats.quoting import line_count
from pipelines.formats.text_blocks import compression_of, plain_message, row_blocks, too_long
from pipelines.formats.text_origin import TextOrigin
from pipelines.rows.origin import Block, Positions, RejectedRow

_COUNTED_BYTES = 1 << 20
"""Bytes of a file whose rows are counted to tell how many it has."""
_DECODED_BYTES = 128 << 20
"""Bytes of columns that a block of text may become, apart from its text."""


class TextReader(Reader):
    """Holds the common part of the readers of CSV and newline-delimited JSON."""

    dialect: Dialect

    def may_grow(self, file: str, size: int) -> bool:
        # What is appended to a line that was not complete changes that row.
        return bool(compression_of(file)) or storage.read_range(file, size - 1, size) in (b"\n", b"\r")

    def expected_rows(self, file: str, size: int) -> float | None:
        if compression_of(file) or self.spec.options.get("encoding"):
            return None
        first = storage.read_range(file, 0, min(size, _COUNTED_BYTES))
        return max(1, len(self.dialect.row_ends(first, final=False))) * size / len(first) if first else 0.0

    @abstractmethod
    def columns(self, raw: bytes, context: Any) -> pa.RecordBatch:
        """Parses whole rows into a batch with the columns of the spec.

        Where a number is none, or too large, its whole column may come as text: `settle` finds the rows at fault.
        Raises pa.ArrowInvalid; whatever else it raises counts as that.
        """

    def settle(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, str]]:
        """Makes numbers of the columns that came as text; gives what is wrong with each row of which that fails."""
        bad: dict[int, str] = {}
        for index, field in enumerate(self.spec.columns):
            if pa.types.is_string(batch.column(index).type) and is_number(field.type):
                values, failures = coerce(batch.column(index), field.type)
                batch = batch.set_column(index, field, values)
                for row, message in failures.items():
                    bad.setdefault(row, f"conversion error: column '{field.name}': {message}")
        return batch, bad

    def parse(self, raw: bytes, context: Any) -> pa.RecordBatch:
        """Parses whole rows, all of them or none. Raises as `columns` does."""
        batch, bad = self.settle(self.columns(raw, context))
        if bad:
            raise pa.ArrowInvalid(bad[min(bad)])
        return batch

    def parse_alone(self, raw: bytes, context: Any) -> pa.RecordBatch:
        """Parses one row that `parse` refused, where the format knows a second way; else raises again."""
        return self.parse(raw, context)

    def message_of(self, error: Exception, context: Any) -> str:
        """Returns what an error of `parse` says about a single row, for people."""
        return plain_message(error)

    @abstractmethod
    def key_of(self, raw: bytes, context: Any) -> str | None:
        """Returns the key of a row that cannot be parsed, if it can be told."""

    def stage_of(self, error: Exception) -> str:
        """Returns the stage that an error of `parse` belongs to."""
        return "decode"

    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        key_of = functools.partial(self._long_key, start=0, context=split.context)
        for offset, raw in row_blocks(split, self.dialect, key_of, self.spec.options.get("encoding")):
            if isinstance(raw, RejectedRow):
                yield raw
            else:
                yield from self.decode(split.file, offset, raw, split.context)

    def replay(self, payload: bytes, context: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        if context.get("message"):
            yield self._decode_message(name, payload, self.context_from(context))
        else:
            yield from self.decode(name, 0, payload, self.context_from(context))

    def _decode_message(self, name: str, payload: bytes, context: Any) -> Block | RejectedRow:
        """Decodes a payload that has to be one row."""
        pieces = list(self._isolate(name, 0, self.one_line(payload), context, self.format_of(context)))
        rows = sum(piece.batch.num_rows if isinstance(piece, Block) else 1 for piece in pieces)
        if rows != 1:
            message = f"the message holds {rows} rows, and one is expected" if rows else "the message is empty"
            return RejectedRow(payload, 0, message, key=self.key_of(payload, context) if self.spec.key else None)
        piece = pieces[0]
        return piece if isinstance(piece, Block) else replace(piece, payload=payload)

    def one_line(self, payload: bytes) -> bytes:
        """Returns a message as it would stand in a file, where the format allows more line ends in it than a
        file does.
        """
        return payload

    def context_from(self, format: Mapping[str, Any]) -> Any:
        """Returns the context of a split, from the format of a dead letter."""
        return None

    def decode(self, name: str, offset: int, raw: bytes, context: Any) -> Iterator[Block | RejectedRow]:
        """Decodes a block of whole rows that begins at `offset` of the file."""
        if self._expands(raw):
            ends = self.dialect.row_ends(raw, final=True)
            step = max(1, _DECODED_BYTES // self._row_width)
            cuts = [0, *ends[step - 1 :: step].tolist(), len(raw)]
            pieces = [(a, b) for a, b in zip(cuts, cuts[1:], strict=False) if a < b]
            for low, high in pieces if len(pieces) > 1 else []:
                yield from self.decode(name, offset + low, raw[low:high], context)
            if len(pieces) > 1:
                return
        batch = None
        bad: dict[int, str] = {}
        rows_are_lines = self.dialect.quote is None or self.dialect.quote not in raw
        if len(raw) <= MAX_ROW_BYTES or rows_are_lines:
            try:
                batch, bad = self.settle(self.columns(raw, context))
            except Exception:  # whatever it is, the rows are told apart to find the one at fault
                batch = None
        format = self.format_of(context)
        if batch is not None:
            origin = TextOrigin(name, offset, raw, self.dialect, format)
            if (rows_are_lines and self.lines_are_checked and len(raw) <= MAX_ROW_BYTES and not bad) or (
                _agree(origin, batch) and self.are_rows(raw, origin.spans().starts, origin.spans().ends)
            ):
                yield from self._without(bad, origin, batch, context)
                return
        yield from self._isolate(name, offset, raw, context, format)

    def _without(
        self, bad: dict[int, str], origin: TextOrigin, batch: pa.RecordBatch, context: Any
    ) -> Iterator[Block | RejectedRow]:
        """The rows of a batch, and those that `settle` refused."""
        if not bad:
            yield from blocks_of(origin, batch)
            return
        positions = origin.positions()
        for row, message in sorted(bad.items()):
            yield self._rejected(origin.payload(row), int(positions[row]), pa.ArrowInvalid(message), context)
        kept = np.setdiff1d(np.arange(batch.num_rows, dtype=np.int64), np.fromiter(bad, np.int64))
        yield from blocks_of(origin.only(kept), batch.take(pa.array(kept)))

    @property
    def _row_width(self) -> int:
        """Bytes of a decoded row without its text, about."""
        return 8 * len(self.spec.columns)

    def _expands(self, raw: bytes) -> bool:
        """Whether a block of short rows becomes much larger by being decoded: each row has a value in each column."""
        worst = self._row_width * len(raw) // 2
        return worst > _DECODED_BYTES and self._row_width * line_count(raw) > _DECODED_BYTES

    def are_rows(self, raw: bytes, starts: Positions, ends: Positions) -> bool:
        """Tells whether each of these pieces of a block that could be parsed is one row: as many of both is not
        enough.
        """
        return True

    lines_are_checked = True
    """Whether `parse` itself makes sure that every line is one row."""

    def _isolate(
        self, name: str, offset: int, raw: bytes, context: Any, format: dict[str, Any]
    ) -> Iterator[Block | RejectedRow]:
        spans = self.dialect.spans(raw)
        good: list[tuple[int, int]] = []
        hopeless = self.hopeless(raw, spans, context)
        edges = [-1, *sorted({*spans.unclosed, *hopeless}), len(spans)]
        pending = [(low + 1, high) for low, high in zip(edges, edges[1:], strict=False)]
        for row in spans.unclosed:
            payload, at = raw[spans.starts[row] : spans.ends[row]], offset + int(spans.starts[row])
            yield self._rejected(payload, at, pa.ArrowInvalid("a quote is never closed"), context)
        for row, message in hopeless.items():
            payload, at = raw[spans.starts[row] : spans.ends[row]], offset + int(spans.starts[row])
            yield self._rejected(payload, at, pa.ArrowInvalid(message), context)
        odd: list[tuple[int, pa.RecordBatch]] = []
        while pending:
            low, high = pending.pop()
            if low >= high:
                continue
            start, stop = int(spans.starts[low]), int(spans.ends[high - 1])
            alone = high - low == 1
            if alone and stop - start > MAX_ROW_BYTES:
                rejected = too_long(name, offset + start, raw[start:stop], stop - start)
                yield replace(rejected, key=self._long_key(raw, start, context))
                continue
            try:
                rows, bad = self.settle(self.columns(raw[start:stop], context))
                if rows.num_rows != high - low or not (
                    alone or self.are_rows(raw, spans.starts[low:high], spans.ends[low:high])
                ):
                    raise pa.ArrowInvalid(f"{rows.num_rows} rows where one was expected")
                for row, message in sorted(bad.items()):
                    payload = raw[spans.starts[low + row] : spans.ends[low + row]]
                    at = offset + int(spans.starts[low + row])
                    yield self._rejected(payload, at, pa.ArrowInvalid(message), context)
                edges = [low - 1, *(low + row for row in sorted(bad)), high]
                good += [(begin + 1, end) for begin, end in itertools.pairwise(edges) if begin + 1 < end]
            except Exception as error:  # of any class: it is the row's fault that it cannot be parsed
                if not alone:
                    middle = (low + high) // 2
                    pending += [(middle, high), (low, middle)]
                    continue
                try:
                    odd.append((low, self.parse_alone(raw[start:stop], context)))
                except Exception as second:
                    told = second if self.stage_of(second) == "coerce" else error
                    yield self._rejected(raw[start:stop], offset + start, told, context)
        if good:
            rows_index = np.concatenate([np.arange(low, high, dtype=np.int64) for low, high in good])
            kept = b"\n".join(raw[int(spans.starts[low]) : int(spans.ends[high - 1])] for low, high in good)
            try:
                batch = self.parse(kept, context)
                if batch.num_rows != len(rows_index):
                    raise pa.ArrowInvalid(f"{batch.num_rows} rows where {len(rows_index)} were expected")
            except Exception:  # what could be parsed apart need not be parsed together
                odd += self._one_by_one(raw, spans, rows_index, context)
            else:
                yield from blocks_of(TextOrigin(name, offset, raw, self.dialect, format, rows_index), batch)
        alike: dict[pa.Schema, list[tuple[int, pa.RecordBatch]]] = {}
        for row, batch in odd:
            alike.setdefault(batch.schema, []).append((row, batch))
        for those in alike.values():
            index = np.array([row for row, _ in those], np.int64)
            batch = pa.concat_batches([batch for _, batch in those])
            yield Block(TextOrigin(name, offset, raw, self.dialect, format, index), batch)

    def _one_by_one(
        self, raw: bytes, spans: Spans, rows: Positions, context: Any
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        for row in rows.tolist():
            yield row, self.parse(raw[spans.starts[row] : spans.ends[row]], context)

    def hopeless(self, raw: bytes, spans: Spans, context: Any) -> dict[int, str]:
        """Returns rows that `parse` is certain to refuse, found without it, and what it would say: it takes 0.1 ms a
        row.
        """
        return {}

    def _long_key(self, raw: bytes, start: int, context: Any) -> str | None:
        """The key of a row too long to parse, from its beginning."""
        return self.key_of(raw[start : start + (1 << 16)], context) if self.spec.key else None

    def _rejected(self, payload: bytes, position: int, error: Exception, context: Any) -> RejectedRow:
        stage = self.stage_of(error)
        name = "CoercionError" if stage == "coerce" else "DecodeError"
        key = self.key_of(payload, context) if self.spec.key else None
        return RejectedRow(payload, position, self.message_of(error, context), name, stage, key=key)


def is_number(type: pa.DataType) -> bool:
    """Tells whether values of the type are numbers or booleans."""
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_boolean(type))


def blocks_of(origin: TextOrigin, batch: pa.RecordBatch) -> Iterator[Block]:
    """Returns the rows of a batch in blocks of at most MAX_BLOCK_ROWS."""
    if 0 < batch.num_rows <= MAX_BLOCK_ROWS:
        yield Block(origin, batch)
        return
    for low in range(0, batch.num_rows, MAX_BLOCK_ROWS):
        part = batch.slice(low, MAX_BLOCK_ROWS)
        yield Block(origin.part(low, low + part.num_rows), part)


def _agree(origin: TextOrigin, batch: pa.RecordBatch) -> bool:
    """Whether the rows that the parser found are those of the block, none with an open quote, none too long."""
    spans = origin.spans()
    longest = int((spans.ends - spans.starts).max(initial=0))
    return len(spans) == batch.num_rows and not spans.unclosed and longest <= MAX_ROW_BYTES
