"""Decodes messages into record batches: one message is one row.

| format | a message is |
|---|---|
| json | one JSON object, on one line or several |
| csv | one row without a header; the reader's option `column_names` names its fields |
| tfexample | one serialized tf.Example |
| avro | one datum of the schema in the file `schema` |
| protobuf | one serialized message of the type `message` in the file `descriptor` |

The messages of a pull are decoded together, in columns. Those that the others could not be decoded with are decoded
one by one, exactly as a replay of their dead letter would.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.base import MAX_PAYLOAD_BYTES, MAX_ROW_BYTES, FormatError, RowReader
from pipelines.formats.json import LINE_ENDS_TO_TABS, JsonReader, count
from pipelines.formats.message import MessageReader, Piece
from pipelines.formats.text import TextReader
from pipelines.formats.text_blocks import plain_message
from pipelines.rows.messages import MessageOrigin, Messages
from pipelines.rows.origin import Block, Positions, RejectedRow

if TYPE_CHECKING:
    from pipelines.formats.tfrecord.examples import ExampleDecoder
    from pipelines.formats.tfrecord.reader import TFRecordReader

READERS = {"json": "json", "csv": "csv", "tfexample": "tfrecord", "avro": "avro_message", "protobuf": "protobuf"}
"""The format whose reader decodes messages of a format."""

Mask = npt.NDArray[np.bool_]
_FEW = 4
"""So few messages are not halved any more: most of the parses would be of the last halves."""


class MessageDecoder:
    """Decodes messages, one thread at a time.

    Args:
      reader: of the format that READERS gives for `format`, made for the columns wanted.
      format: of the messages.

    Attributes:
      format: the `format` of dead letters, with which `reader.replay` takes a payload for one row.

    Raises:
      FormatError: messages of CSV have no header, so the reader needs the option `column_names`.
    """

    def __init__(self, reader: RowReader, format: str) -> None:
        context: Any = None
        if format == "csv":
            context = tuple(reader.spec.options.get("column_names") or ())
            if not context:
                raise FormatError("messages of CSV have no header: name their fields in source.column_names")
        self.format: dict[str, Any] = {**reader.format_of(context), "message": True}
        self._reader = reader
        self._batches: _Batches
        if isinstance(reader, MessageReader):
            self._batches = _Own(reader)
        elif format == "tfexample":
            self._batches = _Examples(cast("TFRecordReader", reader))
        else:
            self._batches = {"json": _Json, "csv": _Csv}[format](cast(TextReader, reader), context)

    def decode(self, messages: Messages) -> Iterator[Block | RejectedRow]:
        """Decodes a pull: what cannot be decoded is a RejectedRow, the rest is one Block.

        Every batch has exactly the columns of the reader's spec. There is more than one Block only where messages
        have values of different types in a column that is left in the type they have (tfexample), or would take too
        much memory together (avro, protobuf).
        """
        payloads = messages.payloads.cast(pa.large_binary())
        windows = [(0, len(payloads))]
        if isinstance(self._reader, MessageReader):
            windows = self._reader.windows(payloads)
        for start, end in windows:
            yield from self._decode(messages, payloads.slice(start, end - start), start)

    def _decode(self, messages: Messages, payloads: pa.LargeBinaryArray, start: int) -> Iterator[Block | RejectedRow]:
        """Decodes the messages from row `start` on that have these payloads."""
        fits = pc.fill_null(pc.less_equal(pc.binary_length(payloads), MAX_ROW_BYTES), False)
        rows = np.flatnonzero(_mask(fits))
        found = self._together(payloads if len(rows) == len(payloads) else payloads.filter(fits))
        pieces = [(start + rows[indices], batch) for indices, batch in found]
        left = np.ones(len(payloads), bool)
        for indices, _ in pieces:
            left[indices - start] = False
        for row in (start + np.flatnonzero(left)).tolist():
            alone = self._alone(messages, row)
            if isinstance(alone, RejectedRow):
                yield alone
            else:
                pieces.append((np.array([row], np.int64), alone.batch))
        yield from self._blocks(messages, pieces)

    def _together(self, payloads: pa.LargeBinaryArray) -> list[Piece]:
        """Decodes messages together, or in halves where that raises: a message must not stop those beside it."""
        found: list[Piece] = []
        pending = [(0, len(payloads))]
        while pending:
            low, high = pending.pop()
            try:
                found += [(low + rows, batch) for rows, batch in self._batches.decode(payloads[low:high])]
            except Exception:  # of any class: what is at fault is decoded alone, and says so
                middle = (low + high) // 2
                pending += [(middle, high), (low, middle)] if high - low > _FEW else []
        return found

    def _replayed(self, payload: bytes, source: str) -> Block | RejectedRow:
        try:
            (found,) = self._reader.replay(payload, self.format, source)
        except Exception as error:  # of any class: a stream that it ended would end again at each start
            return RejectedRow(payload, 0, f"the message cannot be decoded: {plain_message(error)}")
        return found

    def _alone(self, messages: Messages, row: int) -> Block | RejectedRow:
        """Decodes a message on its own."""
        payload = messages.payloads[row].as_py()
        if payload is None:
            found: Block | RejectedRow = RejectedRow(b"", 0, "the message has no payload")
        elif len(payload) > MAX_ROW_BYTES:
            message = f"row of {len(payload):,} bytes in {messages.source}; rows may have at most {MAX_ROW_BYTES:,}"
            found = RejectedRow(payload[:MAX_PAYLOAD_BYTES], 0, message, truncated=len(payload) > MAX_PAYLOAD_BYTES)
        else:
            found = self._replayed(payload, messages.source)
        if isinstance(found, Block):
            return found
        key = None if messages.keys is None else messages.keys[row].as_py()
        file = None if messages.files is None else messages.files[row].as_py()
        key = found.key if key is None else str(key)
        return replace(found, position=int(messages.positions[row]), key=key, file=file)

    def _blocks(self, messages: Messages, pieces: list[Piece]) -> Iterator[Block]:
        alike: dict[pa.Schema, list[Piece]] = {}
        for piece in pieces:
            alike.setdefault(piece[1].schema, []).append(piece)
        for same in alike.values():
            rows, batch = same[0]
            if len(same) > 1:
                rows = np.concatenate([indices for indices, _ in same])
                order = np.argsort(rows)
                rows, batch = rows[order], pa.concat_batches([part for _, part in same]).take(pa.array(order))
            everything = len(rows) == len(messages)
            yield Block(MessageOrigin(messages.source, self.format, messages, None if everything else rows), batch)


class _Batches(ABC):
    """Decodes payloads together."""

    @abstractmethod
    def decode(self, payloads: pa.LargeBinaryArray) -> list[Piece]:
        """Decodes the payloads that can be decoded with others; those that are missing have to be decoded alone."""


class _Own(_Batches):
    """Payloads of a format that is one of messages."""

    def __init__(self, reader: MessageReader) -> None:
        self.reader = reader

    def decode(self, payloads: pa.LargeBinaryArray) -> list[Piece]:
        return self.reader.together(payloads)


class _Text(_Batches):
    """Payloads joined by line ends, and parsed as one block, or as halves where that fails.

    The parser says how many rows it found, not where. So only payloads of a form that `fits` are parsed together: any
    of them, if as many rows are found as there are payloads, are one row each.
    """

    white: str
    """Characters that may stand around a row."""

    def __init__(self, reader: TextReader, context: Any) -> None:
        self.reader, self.context = reader, context

    @abstractmethod
    def fits(self, payloads: pa.LargeBinaryArray) -> pa.BooleanArray:
        """Tells which payloads can be parsed with others."""

    def joined(self, payloads: pa.LargeBinaryArray, ends: Positions) -> memoryview:
        """Joins the payloads, each with a line end at its place in `ends`."""
        empty, line_end = (pa.scalar(text, pa.large_binary()) for text in (b"", b"\n"))
        lines = pc.binary_join_element_wise(payloads, empty, line_end)
        return memoryview(lines.buffers()[2])[: int(ends[-1]) + 1]

    def decode(self, payloads: pa.LargeBinaryArray) -> list[Piece]:
        fits = self.fits(payloads)
        if not pc.all(fits).as_py():
            # As strings only because there is no other way to trim them: whether they are UTF-8 is not looked at.
            strings = payloads.view(pa.large_string())
            payloads = pc.ascii_trim(strings, characters=self.white).view(pa.large_binary())
            fits = self.fits(payloads)
        rows = np.flatnonzero(_mask(fits))
        if not len(rows):
            return []
        payloads = payloads if len(rows) == len(payloads) else payloads.filter(fits)
        ends = np.cumsum(pc.binary_length(payloads).to_numpy() + 1) - 1
        raw = self.joined(payloads, ends)
        found: list[Piece] = []
        pending = [(0, len(rows))]
        while pending:
            low, high = pending.pop()
            parsed = self._parsed(raw[int(ends[low - 1]) + 1 if low else 0 : int(ends[high - 1])])
            if parsed is not None and parsed[0].num_rows == high - low:
                batch, bad = parsed
                kept = np.setdiff1d(np.arange(high - low), np.fromiter(bad, np.int64))
                if len(kept):
                    found.append((rows[low:high][kept], batch.take(pa.array(kept)) if bad else batch))
            elif high - low > _FEW:
                middle = (low + high) // 2
                pending += [(middle, high), (low, middle)]
        return found

    def parsed(self, raw: memoryview) -> pa.RecordBatch:
        """Parses the rows of payloads that have been joined."""
        return self.reader.columns(bytes(raw), self.context)

    def _parsed(self, raw: memoryview) -> tuple[pa.RecordBatch, dict[int, str]] | None:
        try:
            return self.reader.settle(self.parsed(raw))
        except Exception:  # of any class: the messages are halved until the one at fault is left to be decoded alone
            return None


class _Json(_Text):
    white = " \t\r\n"
    reader: JsonReader

    def fits(self, payloads: pa.LargeBinaryArray) -> pa.BooleanArray:
        # Where two payloads meet stands }\n{. No string can hold that line end, and within an object or a list nothing
        # follows a } without a comma: so each payload is one or more whole objects.
        return pc.and_(pc.starts_with(payloads, "{"), pc.ends_with(payloads, "}"))

    def joined(self, payloads: pa.LargeBinaryArray, ends: Positions) -> memoryview:
        raw = super().joined(payloads, ends)
        if count(raw, b"\n") == len(ends) and not count(raw, b"\r"):
            return raw
        # The parser cuts its input at a line end.
        tabbed = bytearray(bytes(raw).translate(LINE_ENDS_TO_TABS))
        np.frombuffer(tabbed, np.uint8)[ends] = ord("\n")
        return memoryview(tabbed)

    def parsed(self, raw: memoryview) -> pa.RecordBatch:
        return self.reader.line_columns(raw)


class _Csv(_Text):
    white = "\r\n"

    def __init__(self, reader: TextReader, context: Any) -> None:
        super().__init__(reader, context)
        quote, delimiter = (
            re.escape(text.decode()) for text in (reader.dialect.quote or b"", reader.dialect.delimiter)
        )
        field = rf"(?:{quote}(?:[^{quote}]|{quote}{quote})*{quote}|[^{quote}{delimiter}\r\n][^{delimiter}\r\n]*|)"
        self._row = rf"\A{field}(?:{delimiter}{field})*\z"

    def fits(self, payloads: pa.LargeBinaryArray) -> pa.BooleanArray:
        # Line ends only within quotes, and every quote that opens a field is closed: the next payload is another row.
        row = pc.match_substring_regex(payloads, self._row)
        return pc.and_(row, pc.greater(pc.binary_length(payloads), 0))


class _Examples(_Batches):
    """Serialized tf.Examples."""

    def __init__(self, reader: TFRecordReader) -> None:
        self.reader = reader
        self._decoder: ExampleDecoder | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoder": None}

    def decode(self, payloads: pa.LargeBinaryArray) -> list[Piece]:
        from pipelines.formats.tfrecord.examples import ExampleDecoder

        records = payloads.to_pylist()
        if not records:
            return []
        if self._decoder is None:
            self._decoder = ExampleDecoder(self.reader.spec, self.reader.record_column, records)
        rows = np.arange(len(records), dtype=np.int64)
        found = self._read(self._decoder, records, rows)
        good = np.sort(np.concatenate([indices for indices, _ in found])) if found else rows[:0]
        if len(found) > 1:
            again = self._read(self._decoder, [records[row] for row in good], good)
            found = again if len(again) == 1 else found
        if len(good) < len(rows):
            # It takes features for what most of its first messages had: perhaps those were the odd ones.
            self._decoder = None
        return found

    @staticmethod
    def _read(decoder: ExampleDecoder, records: list[bytes], rows: Positions) -> list[Piece]:
        pieces = decoder.read("", records, rows)
        return [(piece.origin.positions(), piece.batch) for piece in pieces if isinstance(piece, Block)]


def _mask(values: pa.BooleanArray) -> Mask:
    found: Mask = values.to_numpy(zero_copy_only=False)
    return found
