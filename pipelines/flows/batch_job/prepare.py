"""Makes instances of rows for a batch prediction job: source -> coerce -> files of instances, and of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from inference.errors import Failure
from inference.job.making import InstanceMaker
from inference.marks import make_batch, taken
from inference.sizes import bounded
from pipelines import storage
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.registry import source_encodings
from pipelines.connectors.batch_job.folder import DeadLetterFile, JobFolder, Prepared, make_private
from pipelines.connectors.batch_job.request import RequestMaker
from pipelines.connectors.batch_job.shard_writer import PreparedShard, PreparedShardWriter
from pipelines.connectors.files.dead_letters import ShardedDeadLetters
from pipelines.connectors.files.publishing.commit_record import PublishError
from pipelines.connectors.files.publishing.step import UnbalancedError
from pipelines.connectors.registry import bounded_source
from pipelines.dead_letters.limit import DeadLetterLimit
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.dead_letters.step import RECEIPTS, DeadLetterDoFn, at_bundle_end
from pipelines.plan import Plan
from pipelines.rows.origin import Origin
from pipelines.telemetry.accounting import DEAD_LETTERS, OUTPUT, Receipt, ShardWritten, balance

_GROUP_BYTES = 64 << 20
"""Decoded bytes of a group of rows: one group is in memory while its results are joined."""


def build(
    pipeline: beam.Pipeline, plan: Plan, folder: JobFolder, limit: DeadLetterLimit, request: RequestMaker
) -> None:
    """Adds the flow to a pipeline; at its end the folder holds `prepared.json`.

    Args:
      pipeline: the pipeline to add to.
      plan: what to do.
      folder: of the job.
      limit: how many dead letters there may be.
      request: makes what the folder says of the job.
    """
    dead_letters = ShardedDeadLetters(folder.dead_letters, plan.run_id)
    batches, read = pipeline | "Source" >> bounded_source(plan.config.source).read(plan, dead_letters, limit)
    instances = WriteInstances(plan, folder, dead_letters).limited_by(limit)
    written = batches | "Instances" >> beam.ParDo(instances).with_outputs(RECEIPTS, main="shards")
    receipts = (*read, written[RECEIPTS]) | beam.Flatten()
    complete = Complete(folder, plan.run_id, request)
    sides = beam.pvalue.AsList(receipts), beam.pvalue.AsList(written.shards)
    _ = pipeline | "End" >> beam.Create([None]) | "Complete" >> beam.ParDo(complete, *sides)


class WriteInstances(DeadLetterDoFn):
    """Writes rows as instances: (Origin, record batch) -> PreparedShard. Rows that the model cannot get are refused.

    Args:
      plan: what to do.
      folder: of the job.
      dead_letters: where rows go that cannot become instances.
    """

    def __init__(self, plan: Plan, folder: JobFolder, dead_letters: DeadLetterPlace) -> None:
        super().__init__(dead_letters, plan.model.id)
        config = plan.config
        assert isinstance(config.model, BatchJobConfig)
        self._key_column = plan.key_column
        self._maker = InstanceMaker(
            plan.signature,
            config.source.columns,
            config.source.defaults,
            source_encodings(config.source),
            key_name=config.model.key_input or config.model.key_field,
            are_records=config.model.sends_records,
            most_bytes=config.model.max_instance_bytes,
        )
        self._folder = folder

    def start_bundle(self) -> None:
        super().start_bundle()
        self._writer = PreparedShardWriter(self._folder)

    def process(self, element: tuple[Origin, pa.RecordBatch]) -> None:
        origin, batch = element
        first = 0
        for part in bounded(batch, _GROUP_BYTES):
            self._write(origin, part, first)
            first += part.num_rows

    def finish_bundle(self) -> Iterator[Any]:
        yield from super().finish_bundle()
        for shard in self._writer.end():
            yield at_bundle_end(shard)

    def _write(self, origin: Origin, batch: pa.RecordBatch, first: int) -> None:
        """Writes rows of an origin, from the row `first` on, as one group; its bad rows are marked: they have no
        instance.
        """
        instances, failures = self._maker.make(self._writer.next_group(), batch)
        if instances:
            self._writer.write(instances, origin, _marked(batch, failures), first)
        if failures:
            self._reject(origin, batch, first, failures)

    def _reject(self, origin: Origin, batch: pa.RecordBatch, first: int, failures: dict[int, Failure]) -> None:
        rows = sorted(failures)
        by_row = {first + row: failures[row] for row in rows}
        self.reject_failures(origin, taken(batch, np.array(rows, np.int64)), by_row, self._key_column)


def _marked(batch: pa.RecordBatch, failures: dict[int, Failure]) -> pa.RecordBatch:
    return make_batch(dict(zip(batch.schema.names, batch.columns, strict=True)), failures) if failures else batch


class Complete(beam.DoFn):  # type: ignore[misc]
    """Balances the account of the preparation, gives the instances their names, and notes that all is there.

    A runner may process this again.

    Args:
      folder: of the job.
      run: id of the run.
      request: makes what the folder says of the job.
    """

    def __init__(self, folder: JobFolder, run: str, request: RequestMaker) -> None:
        self._folder = folder
        self._run = run
        self._request = request

    def process(self, _: Any, receipts: Iterable[Receipt], shards: Iterable[PreparedShard]) -> None:
        folder, shards = self._folder, sorted(shards, key=lambda shard: shard.name)
        receipts = list(receipts)
        groups = tuple(group for shard in shards for group in shard.groups)
        rows = sum(group.rows for group in groups)
        account = balance([*receipts, ShardWritten(OUTPUT, "instances", rows, 0)])
        if account.problems:
            raise UnbalancedError("; ".join(account.problems[:5]))
        done = folder.prepared()
        if done is not None:
            if done.run == self._run:
                return
            # Its instances may have been submitted.
            raise PublishError(f"another run has prepared these rows meanwhile, in {folder.path}; use what is there")
        refused = [each for each in receipts if isinstance(each, ShardWritten) and each.kind == DEAD_LETTERS]
        moves = [(folder.unfinished_of(s.name), folder.instances_of(s.name), s.instances) for s in shards]
        moves += [(each.path, folder.dead_letters + each.path.rpartition("/")[2], each.size) for each in refused]
        _move(moves)
        prepared = Prepared(
            run=self._run,
            rows_read=account.rows_read,
            instances=rows,
            instance_bytes=sum(shard.instances for shard in shards),
            groups=groups,
            dead_letters=tuple(
                DeadLetterFile(
                    name=each.path.rpartition("/")[2], size=each.size, checksum=each.checksum, rows=each.rows
                )
                for each in sorted(refused, key=lambda each: each.path)
            ),
        )
        # The record that all is prepared is the last one: whoever finds it finds the request.
        folder.write_request(self._request.make(folder, prepared))
        folder.write_prepared(prepared)


def _move(moves: list[tuple[str, str, int]]) -> None:
    """Gives files their names: (from, to, bytes); those that have them already stay."""
    present: dict[str, int | None] = {}
    for folder in {path.rpartition("/")[0] + "/" for move in moves for path in move[:2]}:
        present |= {folder + entry.name: entry.size for entry in storage.entries(folder, "")}
    lost = [old for old, new, size in moves if present.get(old, present.get(new)) != size]
    if lost:
        raise UnbalancedError(f"{lost[0]} was removed or changed while the run went on")
    for folder in {new.rpartition("/")[0] for _, new, _ in moves}:
        make_private(folder)
    storage.rename([(old, new) for old, new, _ in moves if old in present])
