"""Joins results to their rows: result files -> rows by key -> sink, and the account of it.

Each piece of a result file is parsed and sorted by the groups of its rows into a file of its own; of that only places
go through the runner, by group. A worker then has one group of rows in memory, with the results of that group.

    result files -> SortResults -> (group, places) ─┐
    prepared groups ─> (group, Group) ──────────────┴─> by group ─> JoinResults ─> sink
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import google_crc32c
import numpy as np
import pyarrow as pa

from inference.coders import typed
from inference.handler_base import VERSION_COLUMN
from inference.job.matching import Unmatched, by_group, match, unknown
from inference.job.result_lines import ResultForm
from inference.marks import failures_of, make_batch, numbered, taken
from inference.predict import Rejected
from model.secrets import masked
from pipelines import storage
from pipelines.connectors.base import BatchSinkConnector
from pipelines.connectors.batch_job.folder import DeadLetterFile, Group, JobFolder, Prepared
from pipelines.connectors.batch_job.results import ResultPiece, line_blocks
from pipelines.connectors.batch_job.stored_rows import StoredRows, StoredRowsError, restored
from pipelines.connectors.files.publishing import shards
from pipelines.connectors.files.publishing.step import PublishTarget
from pipelines.dead_letters.limit import DeadLetterLimit
from pipelines.dead_letters.step import RECEIPTS
from pipelines.flows.batch import Ends, connect_ends
from pipelines.plan import Plan
from pipelines.rows.coders import Rows
from pipelines.telemetry.accounting import DEAD_LETTERS, FilePlanned, Misfits, PieceRead, ShardWritten
from pipelines.telemetry.tally import TALLY

_REJECTED = "rejected"
_COPIED_BYTES = 8 << 20


@dataclass(frozen=True)
class Join:
    """Says what is joined.

    Attributes:
      folder: of the job.
      prepared: what was prepared.
      pieces: of result files.
      form: of their lines.
      missing: what to say of a row that has no result.
      model_version: the version that predicted, if the service told it.
    """

    folder: JobFolder
    prepared: Prepared
    pieces: tuple[ResultPiece, ...]
    form: ResultForm
    missing: str
    model_version: str | None


@dataclass(frozen=True)
class ResultPlace:
    """Says where results of one group are.

    Attributes:
      path: of a file of sorted results.
      offset: where they begin.
      length: bytes.
    """

    path: str
    offset: int
    length: int


def build(
    pipeline: beam.Pipeline, plan: Plan, join: Join, target: PublishTarget, sink: BatchSinkConnector | None
) -> None:
    """Adds the flow to a pipeline.

    Args:
      pipeline: the pipeline to add to.
      plan: what to do.
      join: what is joined.
      target: what is published, and where.
      sink: takes over the output; None if that is files.
    """
    sorted_results = join.folder.sorted_results(plan.run_id)
    found = (
        pipeline
        | "Results" >> beam.Create(list(join.pieces))
        | "ShareResults" >> beam.Reshuffle()
        | "Sort" >> beam.ParDo(SortResults(join.form, sorted_results)).with_outputs(RECEIPTS, main="places")
    )
    groups = pipeline | "Groups" >> beam.Create([(group.name, group) for group in join.prepared.groups])
    joined = (
        {"groups": groups, "results": found.places}
        | "ByGroup" >> beam.CoGroupByKey()
        | "Join" >> beam.ParDo(JoinResults(join, plan)).with_outputs(RECEIPTS, _REJECTED, main="predicted")
    )
    refused = pipeline | "Refused" >> beam.Create(list(join.prepared.dead_letters))
    copy = CopyDeadLetters(join.folder, plan.config.dead_letters_path, plan.run_id)
    copied = refused | "CopyDeadLetters" >> beam.ParDo(copy)
    plans = [FilePlanned(group.name, ((0, group.rows),)) for group in join.prepared.groups]
    plans += [FilePlanned(file.name, ((0, 1),)) for file in join.prepared.dead_letters]
    planned = pipeline | "Plans" >> beam.Create(plans)
    receipts = [found[RECEIPTS], joined[RECEIPTS], copied, planned]
    predicted = typed(joined.predicted, Rows)
    # It is paid for: whatever there is, is written.
    connect_ends(pipeline, plan, Ends(predicted, joined[_REJECTED], receipts), target, DeadLetterLimit(1.0, 0), sink)


class SortResults(beam.DoFn):  # type: ignore[misc]
    """Parses a piece of a result file, and sorts it by group: ResultPiece -> (group, ResultPlace).

    Args:
      form: of the lines.
      folder: for the sorted results.
    """

    def __init__(self, form: ResultForm, folder: str) -> None:
        self._form = form
        self._folder = folder

    def process(self, piece: ResultPiece) -> Iterator[Any]:
        tables = [self._form.read(block) for block in line_blocks(piece)]
        if not tables:
            return
        groups, unmatched = by_group(pa.concat_tables(tables).combine_chunks())
        yield from (beam.pvalue.TaggedOutput(RECEIPTS, _misfits(each)) for each in unmatched)
        path, at = f"{self._folder}{uuid.uuid4().hex}.results", 0
        with storage.open_output(path, 0o600) as file:
            for group in groups:
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, group.results.schema) as writer:
                    writer.write_table(group.results)
                encoded = sink.getvalue()
                file.write(encoded)
                yield group.group, ResultPlace(path, at, encoded.size)
                at += encoded.size
        TALLY.add(nbytes=piece.end - piece.start)


class JoinResults(beam.DoFn):  # type: ignore[misc]
    """Gives the rows of a group their results: (group, groups and places) -> (Origin, record batch).

    Args:
      join: what is joined.
      plan: what to do.
    """

    def __init__(self, join: Join, plan: Plan) -> None:
        self._folder = join.folder
        self._schema = join.form.schema
        self._missing = masked(join.missing)
        self._version = join.model_version
        self._tells_version = plan.tells_version

    def process(self, element: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        name, found = element
        groups: list[Group] = list(found["groups"])
        parts = [_read(place) for place in found["results"]]
        if not groups:
            yield beam.pvalue.TaggedOutput(RECEIPTS, _misfits(unknown(name, parts)))
            return
        group = groups[0]
        kept = self._kept(group)
        batch = kept.batch
        refused = failures_of(batch)
        TALLY.add(read=group.rows)
        matched = match(name, batch.num_rows, parts, self._schema, self._missing, list(refused))
        yield from (beam.pvalue.TaggedOutput(RECEIPTS, _misfits(each)) for each in matched.unmatched)
        bad = np.fromiter(matched.failures, np.int64, len(matched.failures))
        columns = dict(zip(batch.schema.names, batch.columns, strict=True)) | matched.outputs
        if self._tells_version:
            columns[VERSION_COLUMN] = pa.repeat(pa.scalar(self._version, pa.string()), batch.num_rows)
        joined = make_batch(columns)
        if len(bad):
            by_row = {row + kept.first: failure for row, failure in matched.failures.items()}
            yield beam.pvalue.TaggedOutput(_REJECTED, Rejected(kept.origin, taken(joined, bad), by_row))
        out = np.fromiter(sorted({*matched.failures, *refused}), np.int64)
        if len(out) or kept.first:
            good = np.setdiff1d(np.arange(batch.num_rows, dtype=np.int64), out)
            joined = numbered(taken(joined, good) if len(out) else joined, good + kept.first)
        if joined.num_rows:
            yield kept.origin, joined
        yield beam.pvalue.TaggedOutput(RECEIPTS, PieceRead(name, (0, group.rows), group.rows))

    def _kept(self, group: Group) -> StoredRows:
        """The rows of a group as they were prepared. Raises StoredRowsError, with what to do."""
        path = self._folder.shard_of(group.name)
        data = storage.read_range(path, group.offset, group.offset + group.length)
        if len(data) != group.length or google_crc32c.value(data) != group.checksum:
            raise StoredRowsError(self._folder.lost(path, f"is not as it was written (checksum of {group.name})"))
        try:
            return restored(data)
        except StoredRowsError as error:
            raise StoredRowsError(self._folder.lost(path, f"cannot be read ({group.name}: {error})")) from None


class CopyDeadLetters(beam.DoFn):  # type: ignore[misc]
    """Copies dead letters of the preparation to those of the run: DeadLetterFile -> receipts.

    Args:
      folder: of the job.
      prefix: of the run's dead letters.
      run: id of the run.
    """

    def __init__(self, folder: JobFolder, prefix: str, run: str) -> None:
        self._folder = folder
        self._prefix = prefix
        self._run = run

    def process(self, file: DeadLetterFile) -> Iterator[Any]:
        path = shards.temporary_path(self._prefix, self._run, "jsonl")
        copy = shards.create_private(path)
        prepared, checksum = self._folder.dead_letters + file.name, 0
        with storage.open_input(prepared) as source:
            while piece := storage.read_fully(source, _COPIED_BYTES):
                copy.write(piece)
                checksum = google_crc32c.extend(checksum, piece)
        size = storage.close_durably(copy)
        if (size, checksum) != (file.size, file.checksum):
            raise StoredRowsError(self._folder.lost(prepared, "is not as it was written (checksum)"))
        TALLY.add(read=file.rows, dead_lettered=file.rows)
        yield ShardWritten(DEAD_LETTERS, path, file.rows, size, checksum)
        yield PieceRead(file.name, (0, 1), file.rows)


def _read(place: ResultPlace) -> pa.Table:
    with pa.ipc.open_stream(storage.read_range(place.path, place.offset, place.offset + place.length)) as reader:
        return reader.read_all()


def _misfits(unmatched: Unmatched) -> Misfits:
    said = "an unknown" if unmatched.what == "unknown" else "a repeated"
    return Misfits(f"results with {said} key", unmatched.count, masked(unmatched.example))
