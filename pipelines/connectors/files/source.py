"""Reads files as (Origin, record batch). Each piece of a file is read once by one worker; a retried piece is read
again from its beginning, and only the attempt that the runner commits counts. A file that changes meanwhile fails the
run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from inference.coders import typed
from pipelines.connectors.files.file_version import FileVersion, current, require_unchanged
from pipelines.connectors.files.partitions import PartitionedReader, with_partition
from pipelines.dead_letters.limit import DeadLetterLimit
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.dead_letters.step import RECEIPTS, DeadLetterDoFn
from pipelines.formats.base import Reader, Split
from pipelines.formats.text import TextReader
from pipelines.formats.text_blocks import compression_of
from pipelines.formats.text_origin import TextOrigin
from pipelines.formats.whole_files import WholeFileReader
from pipelines.rows.coders import Rows
from pipelines.rows.origin import Block, RejectedRow
from pipelines.storage import FileInfo
from pipelines.telemetry.accounting import FilePlanned, PieceRead
from pipelines.telemetry.latency import timed
from pipelines.telemetry.tally import TALLY

_EXPANSION = 10
"""Bytes in memory, or of decompressed text, that a byte of a file is presumed to become at most."""


_PIECES_A_CORE = 8


def split_bytes_for(total: int) -> int:
    """Returns how large a piece should be: small files are shared by all workers, large ones cut into many pieces."""
    return max(2 << 20, min(64 << 20, total // max(16, 4 * (os.cpu_count() or 1))))


class SplitFile(beam.DoFn):  # type: ignore[misc]
    """Cuts each file into pieces: FileInfo -> (FileVersion, Split).

    Args:
      reader: of the files' format.
      split_bytes: wanted size of a piece.
    """

    def __init__(self, reader: Reader, split_bytes: int) -> None:
        self._reader = reader
        self._split_bytes = split_bytes

    def process(self, file: FileInfo) -> Iterator[Any]:
        version = current(file)
        pieces: list[Split] = []
        size = version.info.size
        if size:
            try:
                pieces = self._reader.splits(file.path, size, self._split_bytes)
            except ValueError:
                # The reader says what is wrong with the file when it reads it.
                pieces = [Split(file.path, 0, size, size)]
        yield beam.pvalue.TaggedOutput(
            RECEIPTS, FilePlanned(file.path, tuple((piece.start, piece.end) for piece in pieces))
        )
        yield from ((version, replace(piece, partition=file.partition)) for piece in pieces)


class ReadSplit(DeadLetterDoFn):
    """Reads each piece of a file: (FileVersion, Split) -> (Origin, record batch); what cannot be decoded goes to the
    dead letters.

    Without a version, the reader itself makes sure that the split's files are what they were.
    """

    def __init__(self, reader: Reader, dead_letters: DeadLetterPlace, model: str) -> None:
        super().__init__(dead_letters, model)
        self._reader = reader
        self._partitioned = PartitionedReader(reader)
        self._rows = Metrics.counter("predict", "rows_read")
        self._bytes = Metrics.counter("predict", "bytes_read")

    def process(self, planned: tuple[FileVersion | None, Split]) -> Iterator[Any]:
        version, split = planned
        rows = 0
        counted = 0
        try:
            pieces = self._partitioned.read(split)
            known = _with_bytes(pieces, split, isinstance(self._reader, TextReader))
            for piece, nbytes in timed("read", known, _rows_of_block):
                rows += piece.rows
                self._rows.inc(piece.rows)
                TALLY.add(read=piece.rows, nbytes=max(0, nbytes - counted))
                counted = max(counted, nbytes)
                if isinstance(piece, Block):
                    yield piece.origin, piece.batch
                else:
                    format = with_partition(self._reader.format_of(split.context), split.partition)
                    self.reject_undecoded(piece, piece.file or split.file, format)
                    yield from self.handed_on()
        except OSError:
            # If the file is not what it was any more, that is the cause.
            self._require_unchanged(version, split)
            raise
        self._require_unchanged(version, split)
        self._bytes.inc(split.nbytes)
        TALLY.add(nbytes=split.nbytes - counted)
        yield beam.pvalue.TaggedOutput(RECEIPTS, PieceRead(split.file, (split.start, split.end), rows))

    def _require_unchanged(self, version: FileVersion | None, split: Split) -> None:
        if version is None:
            return
        file, size = split.file, version.info.size
        what = f"{self._reader.unit} {split.start:,} to {split.end:,}"
        require_unchanged(version, what, lambda: self._reader.may_grow(file, size))


def _rows_of_block(piece: tuple[Block | RejectedRow, int]) -> int:
    return piece[0].rows if isinstance(piece[0], Block) else 0


def _with_bytes(
    pieces: Iterator[Block | RejectedRow], split: Split, is_text: bool
) -> Iterator[tuple[Block | RejectedRow, int]]:
    """Pieces, each with how many bytes of the split were read up to its end: about as many, rather too few."""
    piece = next(pieces, None)
    if piece is None:
        return
    plain = is_text and compression_of(split.file) is None
    # A second piece is looked for only until the first split has ended: it would be in memory beside the first.
    looks = not plain and not TALLY.bytes_read
    second = next(pieces, None) if looks else None
    if looks and second is None:
        yield piece, split.nbytes
        return
    seen = 0
    for each in chain([piece], [] if second is None else [second], pieces):
        if isinstance(each, Block):
            if isinstance(each.origin, TextOrigin):
                seen = max(seen, each.origin.end - split.start)
            else:
                seen += each.batch.nbytes
        yield each, min(split.nbytes, seen if plain else seen // _EXPANSION)


class ReadFiles(beam.PTransform):  # type: ignore[misc]
    """Reads files; gives the pairs and the receipts.

    Args:
      files: what to read.
      reader: of their format.
      dead_letters: where rows go that cannot be decoded.
      model: the model as dead letters name it.
      limit: how many dead letters there may be.
    """

    def __init__(
        self,
        files: tuple[FileInfo, ...],
        reader: Reader,
        dead_letters: DeadLetterPlace,
        model: str,
        limit: DeadLetterLimit,
    ) -> None:
        super().__init__()
        self._model = model
        self._files = files
        self._reader = reader
        self._dead_letters = dead_letters
        self._limit = limit

    def expand(self, pbegin: beam.pvalue.PBegin) -> Any:
        split_bytes = split_bytes_for(sum(file.size for file in self._files))
        if isinstance(self._reader, WholeFileReader):
            groups = self._reader.groups(self._files, split_bytes, _PIECES_A_CORE * (os.cpu_count() or 1))
            pieces = pbegin | "Groups" >> beam.Create([(None, group) for group in groups])
            plans = [FilePlanned(group.file, ((group.start, group.end),)) for group in groups]
            plan_receipts = pbegin | "Plans" >> beam.Create(plans)
        else:
            planned = (
                pbegin
                | "Files" >> beam.Create(list(self._files))
                | "Split" >> beam.ParDo(SplitFile(self._reader, split_bytes)).with_outputs(RECEIPTS, main="pieces")
            )
            pieces, plan_receipts = planned.pieces, planned[RECEIPTS]
        read_split = ReadSplit(self._reader, self._dead_letters, self._model).limited_by(self._limit)
        read = (
            pieces
            | "Share" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(read_split).with_outputs(RECEIPTS, main="batches")
        )
        return typed(read.batches, Rows), [plan_receipts, read[RECEIPTS]]
