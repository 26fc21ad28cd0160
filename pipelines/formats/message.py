"""Does what readers of single messages have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.base import BLOCK_BYTES, RowReader
from pipelines.formats.limits import DECODED_BYTES
from pipelines.formats.table import conform, invalid_rows
from pipelines.formats.tfrecord.examples import RecordOrigin
from pipelines.rows.origin import Block, Positions, RejectedRow

Piece = tuple[Positions, pa.RecordBatch]
"""Decoded messages: their indices, and their rows."""


class MessageError(ValueError):
    """Raised when a message is not what its format says; tells in words, for a person, what is wrong."""


@dataclass(frozen=True)
class Framing:
    """Describes what stands before a message: `begin`, then `id_bytes` that are not looked at, then `then`."""

    begin: bytes = b""
    id_bytes: int = 0
    then: bytes = b""

    @property
    def length(self) -> int:
        """Returns the bytes of a message with its frame."""
        return len(self.begin) + self.id_bytes + len(self.then)


CONFLUENT = b"\x00"
CONFLUENT_ID_BYTES = 4


class MessageReader(RowReader):
    """Decodes messages of a format that has no files.

    Options: `framing`, what stands before the message itself: none, single_object or confluent.
    """

    kind: str
    """The format, as dead letters name it."""

    block_bytes = BLOCK_BYTES
    """Of the messages that are decoded together."""

    @property
    def framing(self) -> str:
        """Returns what the config calls it."""
        return str(self.spec.options["framing"])

    @abstractmethod
    def framed(self) -> Framing:
        """Returns how most messages begin."""

    @abstractmethod
    def body(self, payload: bytes) -> bytes:
        """Returns the message without its framing. Raises MessageError."""

    @abstractmethod
    def decode(self, bodies: pa.LargeBinaryArray) -> list[Piece]:
        """Returns the columns of those messages that can be decoded."""

    @abstractmethod
    def memory(self, rows: int, nbytes: int) -> int:
        """Returns the most memory that so many messages of so many bytes together can take when decoded."""

    @abstractmethod
    def wrong(self, body: bytes) -> str:
        """Returns why a message cannot be decoded, in words; empty if it seems that it can."""

    def format_of(self, context: Any) -> dict[str, Any]:
        return {"type": self.kind, "framing": self.framing}

    def windows(self, payloads: pa.LargeBinaryArray) -> list[tuple[int, int]]:
        """Runs of messages that take at most half of DECODED_BYTES together, or are one message; usually one run.

        Half, because the pieces that a run is decoded in are copied when they are put together.
        """
        most = DECODED_BYTES // 2
        nbytes = pc.sum(pc.binary_length(payloads)).as_py() or 0
        if self.memory(len(payloads), nbytes) <= most:
            return [(0, len(payloads))]
        lengths = pc.fill_null(pc.binary_length(payloads), 0).to_numpy()
        bounds, memory = [0], 0
        for row, length in enumerate(lengths.tolist()):
            more = self.memory(1, length)
            if memory and memory + more > most:
                bounds.append(row)
                memory = 0
            memory += more
        return list(zip(bounds, [*bounds[1:], len(payloads)], strict=True))

    def together(self, payloads: pa.LargeBinaryArray) -> list[Piece]:
        """Decodes the messages of a pull; those that are missing from the result have to be looked at alone."""
        rows = np.arange(len(payloads), dtype=np.int64)
        framing = self.framed()
        if framing.length:
            begins = pc.starts_with(payloads, framing.begin)
            goes_on = pc.starts_with(_without(payloads, len(framing.begin) + framing.id_bytes), framing.then)
            suffices = pc.greater_equal(pc.binary_length(payloads), framing.length)
            right = pc.and_(pc.and_(begins, goes_on), suffices)
            rows = rows[right.to_numpy(zero_copy_only=False)]
            payloads = _without(payloads.filter(right), framing.length)
        found: list[Piece] = []
        for start, end in _blocks(payloads, self.block_bytes):
            pieces = self.decode(payloads.slice(start, end - start))
            found += [(rows[start:end][indices], batch) for indices, batch in map(self._valid, pieces)]
        return [(indices, conform(batch, self.spec.columns)) for indices, batch in found if len(indices)]

    def replay(self, payload: bytes, context: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        try:
            batch = self.alone(payload)
        except MessageError as error:
            yield RejectedRow(payload, 0, f"{name}: {error}")
            return
        yield Block(RecordOrigin(name, dict(context), np.zeros(1, np.int64), [payload]), batch)

    def alone(self, payload: bytes) -> pa.RecordBatch:
        """Returns the row of one message. Raises MessageError."""
        body = self.body(payload)
        if wrong := self.wrong(body):
            raise MessageError(wrong)
        pieces = self.decode(pa.array([body], pa.large_binary()))
        if not pieces:
            raise MessageError("it has a value that is not valid, or too large")
        [(_, batch)] = pieces
        for message in invalid_rows(batch).values():
            raise MessageError(message)
        return conform(batch, self.spec.columns)

    @staticmethod
    def _valid(piece: Piece) -> Piece:
        """Without the rows that hold an invalid value."""
        rows, batch = piece
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid:
            kept = np.setdiff1d(np.arange(len(rows)), np.fromiter(invalid_rows(batch), np.int64))
            return rows[kept], batch.take(pa.array(kept))
        return piece


def content(array: pa.LargeBinaryArray) -> bytes:
    """Returns the bytes of all values, joined."""
    bounds = np.frombuffer(array.buffers()[1], np.int64)[array.offset :][: len(array) + 1]
    data = array.buffers()[2]
    return b"" if data is None else data.slice(int(bounds[0]), int(bounds[-1] - bounds[0])).to_pybytes()


def _without(payloads: pa.LargeBinaryArray, count: int) -> pa.LargeBinaryArray:
    """Payloads without their first bytes."""
    # binary_slice of pyarrow 25 fails where a payload is shorter than that.
    return pc.binary_replace_slice(payloads, 0, count, b"")


def _blocks(payloads: pa.LargeBinaryArray, nbytes: int) -> Iterator[tuple[int, int]]:
    """Runs of messages of about so many bytes."""
    if not len(payloads):
        return
    ends = np.cumsum(pc.binary_length(payloads).to_numpy())
    cuts = np.flatnonzero(np.diff(ends // nbytes)) + 1
    bounds = [0, *cuts.tolist(), len(payloads)]
    yield from zip(bounds, bounds[1:], strict=False)
