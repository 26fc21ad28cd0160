"""Reads dead letters as (Origin, record batch), one batch each. A dead letter keeps its key, source and payload, and
its attempts go on counting. A file of dead letters that changes while it is read fails the run.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np

from inference.coders import typed
from pipelines import storage
from pipelines.connectors.files.file_version import current, require_unchanged
from pipelines.connectors.files.partitions import PartitionedReader
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.dead_letters.step import RECEIPTS, DeadLetterDoFn
from pipelines.formats.base import MAX_PAYLOAD_BYTES, RowReader
from pipelines.rows.coders import Rows
from pipelines.rows.origin import Block, DeadLetter, Origin, Positions
from pipelines.storage import FileInfo
from pipelines.telemetry.accounting import FilePlanned, PieceRead
from pipelines.telemetry.tally import TALLY


class DeadLetterOrigin(Origin):
    """Represents the row of a dead letter."""

    def __init__(self, dead_letter: DeadLetter, rows: int) -> None:
        file, _, position = dead_letter.source.rpartition(":")
        self.file = file or dead_letter.source
        self.format = dead_letter.format
        self.earlier_attempts = dead_letter.attempts
        self._dead_letter = dead_letter
        self._rows = rows
        self._position = int(position) if position.isdigit() else 0

    def positions(self) -> Positions:
        return np.full(self._rows, self._position, np.int64)

    def payload(self, row: int) -> bytes:
        return self._dead_letter.payload


def identity(shards: list[FileInfo]) -> str:
    """Returns names just these dead letters, by 8 hex digits: a replay that is repeated replaces its own output."""
    digest = hashlib.sha256()
    for shard in shards:
        with storage.open_input(shard.path) as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()[:8]


class _ReadShard(DeadLetterDoFn):
    def __init__(self, reader: RowReader, dead_letters: DeadLetterPlace) -> None:
        super().__init__(dead_letters, "")
        self._reader = PartitionedReader(reader)

    def process(self, shard: FileInfo) -> Iterator[Any]:
        rows = 0
        version = current(shard)
        for line in filter(None, _lines(shard.path, shard.size)):
            dead_letter = DeadLetter.from_json(line)
            blocks, reason = self._decode(dead_letter)
            if reason is not None:
                rows += dead_letter.rows
                tried = dataclasses.replace(dead_letter, attempts=dead_letter.attempts + 1, message=reason)
                self.put(tried)
            for block in blocks:
                rows += block.batch.num_rows
                yield DeadLetterOrigin(dead_letter, block.batch.num_rows), block.batch
        require_unchanged(version, f"bytes 0 to {shard.size:,}", lambda: False)
        TALLY.add(read=rows, nbytes=shard.size)
        yield beam.pvalue.TaggedOutput(RECEIPTS, PieceRead(shard.path, (0, shard.size), rows))

    def _decode(self, dead_letter: DeadLetter) -> tuple[list[Block], str | None]:
        """Decodes the rows of a dead letter, or tells why there are none: then it stays one."""
        if dead_letter.payload_truncated:
            return [], dead_letter.message
        try:
            pieces = list(self._reader.replay(dead_letter.payload, dead_letter.format, dead_letter.source))
        except Exception as error:  # of any class: the dead letter stays one
            return [], f"the payload cannot be decoded with the present config: {error}"[:500]
        blocks = [piece for piece in pieces if isinstance(piece, Block)]
        refused = [piece for piece in pieces if not isinstance(piece, Block)]
        if refused:
            return [], refused[0].message
        return blocks, None if blocks else "the payload holds no row"


def _lines(path: str, size: int) -> Iterator[bytes]:
    """Reads the lines of the first `size` bytes of a file; each fits the largest payload."""
    pieces: list[bytes] = []
    length = 0
    with storage.open_input(path) as file:
        while size > 0 and (piece := file.read(min(size, 1 << 20))):
            size -= len(piece)
            first, *others = piece.split(b"\n")
            pieces.append(first)
            length += len(first)
            if length > 2 * MAX_PAYLOAD_BYTES:
                raise ValueError(f"{path}: a line is too long for a dead letter")
            if others:
                yield b"".join(pieces)
                yield from others[:-1]
                pieces, length = [others[-1]], len(others[-1])
    yield b"".join(pieces)


class ReadDeadLetters(beam.PTransform):  # type: ignore[misc]
    """Reads shards of dead letters; gives the pairs and the receipts."""

    def __init__(self, shards: list[FileInfo], reader: RowReader, dead_letters: DeadLetterPlace) -> None:
        super().__init__()
        self._shards = shards
        self._reader = reader
        self._dead_letters = dead_letters

    def expand(self, pbegin: beam.pvalue.PBegin) -> Any:
        plans = [FilePlanned(shard.path, ((0, shard.size),)) for shard in self._shards]
        read = (
            pbegin
            | "Shards" >> beam.Create(self._shards)
            | "Share" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_ReadShard(self._reader, self._dead_letters)).with_outputs(RECEIPTS, main="batches")
        )
        planned = pbegin | "Plans" >> beam.Create(plans)
        return typed(read.batches, Rows), [planned, read[RECEIPTS]]
