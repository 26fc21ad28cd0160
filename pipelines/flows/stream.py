"""Builds the flow of a stream: messages -> decode -> Predict -> sink, one fused stage, dead letters beside it.

A micro-batch is formed once, by the source; it passes through all steps at once, within its bundle. A bundle ends when
what it wrote is durable; only then may its messages be acknowledged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics

from inference.coders import typed
from inference.predict import Keyed, Predict
from pipelines.beam_fixes.prism_outlet import give_outlet
from pipelines.clock import now_us
from pipelines.config.registry import source_encodings
from pipelines.config.run import Window
from pipelines.connectors.console.sink import ShowRows
from pipelines.connectors.run import StreamRun
from pipelines.connectors.writing.columns import keys_of
from pipelines.connectors.writing.rows import WriteRows
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.dead_letters.step import DeadLetterDoFn, RejectUnpredicted
from pipelines.flows.decode import MessageDecoder
from pipelines.flows.dedupe import Seen, seen
from pipelines.formats.base import RowReader
from pipelines.formats.output_values import to_output
from pipelines.planning.model import make_handler
from pipelines.rows.coders import Rows
from pipelines.rows.messages import MessageOrigin, Messages
from pipelines.rows.origin import Block, RejectedRow
from pipelines.telemetry.accounting import NAMESPACE
from pipelines.telemetry.constant_outputs import CONSTANTS
from pipelines.telemetry.latency import LATENCIES
from pipelines.telemetry.tally import TALLY


class Decode(DeadLetterDoFn):
    """Decodes messages: Messages -> (Origin, record batch); what cannot be decoded goes to the dead letters.

    Args:
      dead_letters: where they go.
      reader: of the messages' format.
      format: its name.
      model: the model as dead letters name it.
      key_column: the column that identifies a row, if there is one.
      window: in which repeats of a key are dropped; None: they are kept.
    """

    def __init__(
        self,
        dead_letters: DeadLetterPlace,
        reader: RowReader,
        format: str,
        model: str,
        key_column: str | None,
        window: Window | None,
    ) -> None:
        super().__init__(dead_letters, model)
        self._decoder = MessageDecoder(reader, format)
        self._key_column = key_column
        self._window = window
        self._seen: Seen | None = None
        self._rows = Metrics.counter(NAMESPACE, "rows_read")

    def setup(self) -> None:
        self._seen = seen(self._window) if self._window else None

    def process(self, messages: Messages) -> Iterator[Any]:
        count = len(messages)
        TALLY.begin_micro_batch()
        self._rows.inc(count)
        TALLY.add(read=count)
        LATENCIES.add("lag", messages.received_us - messages.event_us)
        LATENCIES.add("wait", messages.pulled_us - messages.received_us, count)
        for piece in self._decoder.decode(messages):
            if isinstance(piece, Block) and isinstance(piece.origin, MessageOrigin):
                origin, batch = self._first_only(piece.origin, piece.batch)
                if batch.num_rows:
                    yield dataclasses.replace(origin, decoded_us=now_us()), batch
            elif isinstance(piece, RejectedRow) and not self._came_before(piece, piece.file or messages.source):
                self.reject_undecoded(piece, piece.file or messages.source, self._decoder.format)

    def _first_only(self, origin: MessageOrigin, batch: pa.RecordBatch) -> tuple[MessageOrigin, pa.RecordBatch]:
        """Returns the rows whose keys come for the first time."""
        if self._seen is None:
            return origin, batch
        rows = np.arange(batch.num_rows)
        keys = to_output(keys_of(self._key_column, origin, batch, rows), pa.string())
        fresh = self._seen.fresh(keys.to_pylist())
        if fresh is None:
            return origin, batch
        TALLY.add(repeated=int(len(fresh) - fresh.sum()))
        of_messages = rows if origin.rows is None else origin.rows
        return dataclasses.replace(origin, rows=of_messages[fresh]), batch.filter(pa.array(fresh))

    def _came_before(self, row: RejectedRow, source: str) -> bool:
        if self._seen is None:
            return False
        fresh = self._seen.fresh([row.key or f"{source}:{row.position}"])
        if fresh is None:
            return False
        TALLY.add(repeated=1)
        return True


class Measure(beam.DoFn):  # type: ignore[misc]
    """Passes predicted rows on, and notes how long the model took, and which outputs do not change."""

    def process(self, element: tuple[MessageOrigin, pa.RecordBatch]) -> Iterator[Any]:
        origin, batch = element
        LATENCIES.add("model", now_us() - origin.decoded_us, batch.num_rows)
        CONSTANTS.look(batch)
        yield element


def build(pipeline: beam.Pipeline, run: StreamRun, read: beam.PTransform, reader: RowReader, to_stderr: bool) -> None:
    """Adds the flow of a stream to a pipeline.

    Args:
      pipeline: the pipeline to add to.
      run: the plan, and what is written to.
      read: gives Messages.
      reader: of the messages' format.
      to_stderr: rows that are shown go to standard error.
    """
    plan, dead_letters = run.plan, run.dead_letters
    config = plan.config
    handler = make_handler(
        plan.model,
        columns=config.source.columns,
        defaults=config.source.defaults,
        encodings=source_encodings(config.source),
        max_rows=config.batching.max_rows,
        max_bytes=config.batching.max_bytes,
        model_version=plan.tells_version,
        outputs=plan.model_outputs,
        # The source has formed the micro-batch; it does not wait for another.
        gather=False,
        follow=True,
    )
    decode = Decode(dead_letters, reader, config.source.format, plan.model.id, plan.key_column, config.repeats_within)
    batches = typed(pipeline | "Source" >> read | "Decode" >> beam.ParDo(decode), Rows)
    predicted, rejected = batches | "Predict" >> Predict(Keyed(handler)).with_exception_handling()
    reject = RejectUnpredicted(dead_letters, plan.model.id, plan.key_column)
    _ = rejected | "DeadLetters" >> beam.ParDo(reject)
    predicted = typed(predicted | "Measure" >> beam.ParDo(Measure()), Rows)
    give_outlet(predicted)
    writer = run.sink.writer()
    if config.output.show:
        show = ShowRows(plan.output, plan.key_column, config.output.show, to_stderr, last=writer is None)
        _ = predicted | "Show" >> beam.ParDo(show)
    if writer is not None:
        _ = predicted | "Sink" >> beam.ParDo(WriteRows(writer, plan.key_column, dead_letters, plan.model.id))
