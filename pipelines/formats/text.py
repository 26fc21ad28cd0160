"""Reading files whose rows are lines of text: blocks of whole rows, and bad rows found by bisecting.

A block is parsed as a whole by a vectorised parser. Only when that fails are its rows told apart (with
numpy), and the failing ones found by parsing halves. So a bad row costs a few parses, a good block none.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa

from pipelines import files
from pipelines.formats.base import (
    BLOCK_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_ROW_BYTES,
    FormatError,
    Reader,
    Split,
)
from pipelines.formats.dialect import Dialect, Spans
from pipelines.rows import Block, Origin, Positions, RejectedRow

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}


def compression_of(path: str) -> str | None:
    """The compression that a file's name stands for, in pyarrow's words."""
    return COMPRESSIONS.get(os.path.splitext(path)[1].lower())


def open_text(path: str) -> IO[bytes]:
    """Opens a file, decompressed by its extension."""
    raw = files.open_input(path)
    compression = compression_of(path)
    if compression is None:
        return raw
    stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression)
    return cast(IO[bytes], stream)


class TextOrigin(Origin):
    """Rows of a block of text.

    Args:
      file: path of the file.
      base: position of the block in the (decompressed) file, in bytes.
      raw: the block.
      dialect: how its rows are told apart.
      format: see Origin.
      rows: the rows of the block that are in the batch, as int64 indices; None means all of them.
    """

    def __init__(
        self,
        file: str,
        base: int,
        raw: bytes,
        dialect: Dialect,
        format: dict[str, Any],
        rows: Positions | None = None,
    ) -> None:
        self.file = file
        self.format = format
        self._base = base
        self._raw = raw
        self._dialect = dialect
        self._rows = rows
        self._spans: Spans | None = None

    @property
    def nbytes(self) -> int:
        return len(self._raw)

    @property
    def end(self) -> int:
        """Position just behind the block in the (decompressed) file, in bytes."""
        return self._base + len(self._raw)

    def spans(self) -> Spans:
        """Where the rows of the batch stand in the block."""
        if self._spans is None:
            spans = self._dialect.spans(self._raw)
            if self._rows is not None:
                spans = Spans(spans.starts[self._rows], spans.ends[self._rows])
            self._spans = spans
        return self._spans

    def positions(self) -> Positions:
        return self.spans().starts + self._base

    def payload(self, row: int) -> bytes:
        spans = self.spans()
        return self._raw[spans.starts[row] : spans.ends[row]]


class _BrokenStreamError(Exception):
    """A compressed file ends early, or is not what its name says."""


def _chunks(split: Split) -> Iterator[bytes]:
    """The (decompressed) bytes of a split, BLOCK_BYTES at a time. Raises _BrokenStreamError."""
    if compression_of(split.file) is None:
        with files.open_input(split.file, split.start) as file:
            left = split.end - split.start
            while left > 0 and (chunk := files.read_fully(file, min(BLOCK_BYTES, left))):
                left -= len(chunk)
                yield chunk
        return
    try:
        with open_text(split.file) as file:
            files.read_fully(file, split.start)
            while chunk := files.read_fully(file, BLOCK_BYTES):
                yield chunk
    except (OSError, EOFError) as error:
        raise _BrokenStreamError(str(error)) from error


class TextReader(Reader):
    """Common part of the readers of CSV and newline-delimited JSON."""

    dialect: Dialect

    @abstractmethod
    def parse(self, raw: bytes, context: Any) -> pa.RecordBatch:
        """Parses whole rows into a batch with the columns of the spec. Raises pa.ArrowInvalid."""

    def parse_alone(self, raw: bytes, context: Any) -> pa.RecordBatch:
        """Parses one row that `parse` refused, where the format knows a second way; else raises again."""
        return self.parse(raw, context)

    def message_of(self, error: Exception, context: Any) -> str:
        """What an error of `parse` says about a single row, for people."""
        return plain_message(error)

    @abstractmethod
    def key_of(self, raw: bytes, context: Any) -> str | None:
        """The key of a row that cannot be parsed, if it can be told."""

    def stage_of(self, error: Exception) -> str:
        """The stage that an error of `parse` belongs to."""
        return "decode"

    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        for offset, raw in self._row_blocks(split):
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
        """A message as it would stand in a file, where the format allows more line ends in it than a file does."""
        return payload

    def context_from(self, format: Mapping[str, Any]) -> Any:
        """The context of a split, from the format of a dead letter."""
        return None

    def _row_blocks(self, split: Split) -> Iterator[tuple[int, bytes | RejectedRow]]:
        """Whole rows, about BLOCK_BYTES at a time; the reader's memory is bounded by that and the longest row."""
        offset, carry, skipping = split.start, b"", False
        try:
            for chunk in _chunks(split):
                rest = chunk.find(b"\n") + 1 if skipping else 0
                if skipping and not rest:
                    offset += len(chunk)
                    continue
                offset, skipping = offset + rest, False
                data = carry + chunk[rest:]
                cut, carry = self.dialect.last_row_end(data), b""
                if cut:
                    yield offset, data[:cut]
                    offset, carry = offset + cut, data[cut:]
                elif len(data) > MAX_PAYLOAD_BYTES:
                    yield offset, _too_long(split.file, offset, data)
                    offset, skipping = offset + len(data), True
                else:
                    carry = data
        except _BrokenStreamError as error:
            yield offset, _unreadable(split.file, offset, carry, error)
            return
        if carry:
            yield offset, carry

    def decode(self, name: str, offset: int, raw: bytes, context: Any) -> Iterator[Block | RejectedRow]:
        """Decodes a block of whole rows that begins at `offset` of the file."""
        batch = None
        rows_are_lines = self.dialect.quote is None or self.dialect.quote not in raw
        if len(raw) <= MAX_ROW_BYTES or rows_are_lines:
            try:
                batch = self.parse(raw, context)
            except (pa.ArrowInvalid, UnicodeError):
                batch = None
        format = self.format_of(context)
        if batch is not None:
            origin = TextOrigin(name, offset, raw, self.dialect, format)
            if (rows_are_lines and self.lines_are_checked and len(raw) <= MAX_ROW_BYTES) or (
                _agree(origin, batch) and self.are_rows(raw, origin.spans().starts, origin.spans().ends)
            ):
                if batch.num_rows:
                    yield Block(origin, batch)
                return
        yield from self._isolate(name, offset, raw, context, format)

    def are_rows(self, raw: bytes, starts: Positions, ends: Positions) -> bool:
        """Whether each of these pieces of a block that could be parsed is one row: as many of both is not enough."""
        return True

    lines_are_checked = True
    """Whether `parse` itself makes sure that every line is one row."""

    def _isolate(
        self, name: str, offset: int, raw: bytes, context: Any, format: dict[str, Any]
    ) -> Iterator[Block | RejectedRow]:
        spans = self.dialect.spans(raw)
        good: list[tuple[int, int]] = []
        edges = [-1, *sorted(spans.unclosed), len(spans)]
        pending = [(low + 1, high) for low, high in zip(edges, edges[1:], strict=False)]
        for row in spans.unclosed:
            payload, at = raw[spans.starts[row] : spans.ends[row]], offset + int(spans.starts[row])
            yield self._rejected(payload, at, pa.ArrowInvalid("a quote is never closed"), context)
        odd: list[tuple[int, pa.RecordBatch]] = []
        while pending:
            low, high = pending.pop()
            if low >= high:
                continue
            start, stop = int(spans.starts[low]), int(spans.ends[high - 1])
            alone = high - low == 1
            if alone and stop - start > MAX_ROW_BYTES:
                yield replace(_too_long(name, offset + start, raw[start:stop]), key=self._long_key(raw, start, context))
                continue
            try:
                rows = self.parse(raw[start:stop], context)
                if rows.num_rows != high - low or not (
                    alone or self.are_rows(raw, spans.starts[low:high], spans.ends[low:high])
                ):
                    raise pa.ArrowInvalid(f"{rows.num_rows} rows where one was expected")
                good.append((low, high))
            except (pa.ArrowInvalid, UnicodeError) as error:
                if not alone:
                    middle = (low + high) // 2
                    pending += [(middle, high), (low, middle)]
                    continue
                try:
                    odd.append((low, self.parse_alone(raw[start:stop], context)))
                except (pa.ArrowInvalid, UnicodeError):
                    yield self._rejected(raw[start:stop], offset + start, error, context)
        if good:
            rows_index = np.concatenate([np.arange(low, high, dtype=np.int64) for low, high in good])
            kept = b"\n".join(raw[int(spans.starts[low]) : int(spans.ends[high - 1])] for low, high in good)
            batch = self.parse(kept, context)
            yield Block(TextOrigin(name, offset, raw, self.dialect, format, rows_index), batch)
        for row, batch in odd:
            index = np.array([row], np.int64)
            yield Block(TextOrigin(name, offset, raw, self.dialect, format, index), batch)

    def _long_key(self, raw: bytes, start: int, context: Any) -> str | None:
        """The key of a row too long to parse, from its beginning."""
        return self.key_of(raw[start : start + (1 << 16)], context) if self.spec.key else None

    def _rejected(self, payload: bytes, position: int, error: Exception, context: Any) -> RejectedRow:
        stage = self.stage_of(error)
        name = "CoercionError" if stage == "coerce" else "DecodeError"
        key = self.key_of(payload, context) if self.spec.key else None
        return RejectedRow(payload, position, self.message_of(error, context), name, stage, key=key)


def _agree(origin: TextOrigin, batch: pa.RecordBatch) -> bool:
    """Whether the rows that the parser found are those of the block, none with an open quote, none too long."""
    spans = origin.spans()
    longest = int((spans.ends - spans.starts).max(initial=0))
    return len(spans) == batch.num_rows and not spans.unclosed and longest <= MAX_ROW_BYTES


def _too_long(name: str, position: int, data: bytes) -> RejectedRow:
    truncated = len(data) > MAX_PAYLOAD_BYTES
    size = f"more than {MAX_PAYLOAD_BYTES:,}" if truncated else f"{len(data):,}"
    message = f"row of {size} bytes in {name}; rows may have at most {MAX_ROW_BYTES:,}"
    return RejectedRow(data[:MAX_PAYLOAD_BYTES], position, message, truncated=truncated)


def _unreadable(name: str, offset: int, carry: bytes, error: Exception) -> RejectedRow:
    message = f"{name} cannot be decompressed beyond byte {offset + len(carry):,}: {plain_message(error)}"
    if offset or carry:
        return RejectedRow(carry, offset, message, truncated=True)
    whole = files.read_range(name, 0, MAX_PAYLOAD_BYTES)
    return RejectedRow(whole, 0, message, truncated=len(whole) == MAX_PAYLOAD_BYTES)


def plain_message(error: Exception) -> str:
    """An error's message on one line, at most 500 characters, without parts that only mislead."""
    text = re.sub(r"Row #\d+: ", "", str(error))
    text = " ".join(text.split())
    return text if len(text) <= 500 else text[:497] + "..."


def first_block(file: str, size: int = 1 << 20) -> bytes:
    """The first bytes of a (decompressed) file, for looking at it. Raises FormatError."""
    try:
        with open_text(file) as stream:
            return files.read_fully(stream, size)
    except (OSError, EOFError) as error:
        raise FormatError(f"{file} cannot be read: {plain_message(error)}") from None
