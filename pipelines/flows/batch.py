"""Builds the flow of a batch run: source -> Predict -> sink, and the account of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import apache_beam as beam

from inference.predict import Keyed, Predict
from pipelines.config.registry import source_encodings
from pipelines.connectors.base import BatchSinkConnector
from pipelines.connectors.files.dead_letters import ShardedDeadLetters
from pipelines.connectors.files.publishing.place import Place
from pipelines.connectors.files.publishing.step import Publish, PublishTarget
from pipelines.connectors.files.sink import ShardWriter
from pipelines.connectors.registry import bounded_source
from pipelines.connectors.writing.rows import WriteRows
from pipelines.dead_letters.limit import DeadLetterLimit
from pipelines.dead_letters.step import RECEIPTS, RejectUnpredicted
from pipelines.formats import writer_class
from pipelines.plan import Plan, output_options
from pipelines.planning.model import make_handler
from pipelines.telemetry.latency import note_model

_LARGE_FILE_BYTES = 8 << 20


def reads_large_blocks(plan: Plan) -> bool:
    """Tells whether the source gives batches that are large as they come, so that gathering would only hold them up."""
    if plan.extent is not None:
        return True
    sizes = [file.size for file in plan.files if file.size]
    return bool(sizes) and sum(sizes) / len(sizes) >= _LARGE_FILE_BYTES


def limit_of(plan: Plan) -> DeadLetterLimit:
    """Returns how many dead letters a run may have before it ends early."""
    if plan.extent is not None and not plan.extent.rows:
        # Nobody knows how many rows are still to come.
        return DeadLetterLimit(1.0, 0)
    return DeadLetterLimit(plan.config.dead_letters.max_fraction, plan.nbytes)


def dead_letters_of(plan: Plan) -> ShardedDeadLetters:
    """Returns where the dead letters of a run go."""
    return ShardedDeadLetters(plan.config.dead_letters_path, plan.run_id)


def build(
    pipeline: beam.Pipeline, plan: Plan, sink: BatchSinkConnector | None, unattended: tuple[Place, ...] = ()
) -> None:
    """Adds the flow of a batch run to a pipeline.

    Args:
      pipeline: the pipeline to add to.
      plan: what to do.
      sink: takes over the output; None if that is files.
      unattended: the places that it publishes to, if no command waits for it and holds them.
    """
    read = bounded_source(plan.config.source).read(plan, dead_letters_of(plan), limit_of(plan))
    connect(pipeline, plan, read, target_of(plan, sink, unattended), sink)


def target_of(plan: Plan, sink: BatchSinkConnector | None, unattended: tuple[Place, ...] = ()) -> PublishTarget:
    """Returns what a run publishes, and where.

    Args:
      plan: what to do.
      sink: takes over the output; None if that is files.
      unattended: the places, if no command waits for the run and holds them.
    """
    output = plan.config.output_path
    order = sink.order() if sink else None
    dead_letters = plan.config.dead_letters_path
    return PublishTarget(
        plan.run_id, plan.config.name, output, output, dead_letters, order=order, unattended=unattended
    )


@dataclass(frozen=True)
class Ends:
    """Holds what is left to do of a flow: rows with and without predictions, and receipts.

    Attributes:
      predicted: (Origin, record batch) with the outputs.
      rejected: `Rejected` rows.
      receipts: of what came before.
    """

    predicted: beam.PCollection
    rejected: beam.PCollection
    receipts: Sequence[beam.PCollection]


def connect(
    pipeline: beam.Pipeline,
    plan: Plan,
    read: beam.PTransform,
    target: PublishTarget,
    sink: BatchSinkConnector | None,
) -> None:
    """Adds source -> Predict -> sink and the account of it.

    Args:
      pipeline: the pipeline to add to.
      plan: what to do.
      read: gives (Origin, record batch), and receipts.
      target: what is published, and where; an output without rows is a file too, but for a replay's.
      sink: takes over the output; None if that is files.
    """
    limit = limit_of(plan)
    handler = make_handler(
        plan.model,
        columns=plan.config.source.columns,
        defaults=plan.config.source.defaults,
        encodings=source_encodings(plan.config.source),
        max_rows=plan.config.batching.max_rows,
        max_bytes=plan.config.batching.max_bytes,
        model_version=plan.tells_version,
        outputs=plan.model_outputs,
        gather=not reads_large_blocks(plan),
    )
    handler = handler.limited_by(limit).timed_by(note_model)
    batches, read_receipts = pipeline | "Source" >> read
    predicted, rejected = batches | "Predict" >> Predict(Keyed(handler)).with_exception_handling()
    connect_ends(pipeline, plan, Ends(predicted, rejected, read_receipts), target, limit, sink)


def connect_ends(
    pipeline: beam.Pipeline,
    plan: Plan,
    ends: Ends,
    target: PublishTarget,
    limit: DeadLetterLimit,
    sink: BatchSinkConnector | None,
) -> None:
    """Adds sink, dead letters and the account to rows that are predicted.

    Args:
      pipeline: the pipeline to add to.
      plan: what to do.
      ends: what was done before.
      target: what is published, and where.
      limit: how many dead letters there may be.
      sink: takes over the output; None if that is files.
    """
    dead_letters = dead_letters_of(plan)
    writer = sink.writer() if sink else writer_class(plan.config.output.shard_format)
    columns = sink.columns() if sink else plan.output
    unpredicted = ends.rejected | "DeadLetters" >> beam.ParDo(
        RejectUnpredicted(dead_letters, plan.model.id, plan.key_column).limited_by(limit)
    ).with_outputs(RECEIPTS)
    options = output_options(plan)
    shards = ShardWriter(writer, columns, options, target.output, plan.run_id)
    write = WriteRows(shards, plan.key_column, dead_letters, plan.model.id)
    written = ends.predicted | "Sink" >> beam.ParDo(write.limited_by(limit)).with_outputs(RECEIPTS, main="shards")

    receipts = (*ends.receipts, unpredicted[RECEIPTS], written.shards, written[RECEIPTS]) | beam.Flatten()
    publish = Publish(target, writer, None if target.is_replay else (shards.schema, options))
    _ = pipeline | "End" >> beam.Create([None]) | "Publish" >> beam.ParDo(publish, beam.pvalue.AsList(receipts))
