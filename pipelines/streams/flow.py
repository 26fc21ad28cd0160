"""The flow of a stream: messages -> decode -> Predict -> sink, one fused stage, and dead letters beside it.

A micro-batch is formed once, by the source; it passes through all steps at once, within its bundle. A bundle ends when
what it wrote is durable; only then may its messages be acknowledged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics

from inference.coders import typed
from inference.predict import Keyed, Predict
from pipelines.coders import Rows
from pipelines.dead_letters import DeadLetterDoFn, RejectUnpredicted
from pipelines.formats.base import Reader
from pipelines.models import make_handler
from pipelines.plan import Plan
from pipelines.progress import TALLY
from pipelines.publish import NAMESPACE
from pipelines.rows import Block, RejectedRow
from pipelines.sinks.console import ShowRows
from pipelines.streams.decode import MessageDecoder
from pipelines.streams.destinations import destination
from pipelines.streams.latency import LATENCIES
from pipelines.streams.messages import MessageOrigin, Messages
from pipelines.streams.schedule import now_us


class Decode(DeadLetterDoFn):
    """Messages -> (Origin, record batch); what cannot be decoded goes to the dead letters.

    Args:
      reader: of the messages' format.
      format: its name.
      dead_letters: prefix of the dead letters' files.
      model: the model as dead letters name it.
    """

    def __init__(self, reader: Reader, format: str, dead_letters: str, model: str) -> None:
        super().__init__(dead_letters, "", model)
        self._decoder = MessageDecoder(reader, format)
        self._rows = Metrics.counter(NAMESPACE, "rows_read")

    def process(self, messages: Messages) -> Iterator[Any]:
        count = len(messages)
        self._rows.inc(count)
        TALLY.add(read=count)
        LATENCIES.add("lag", messages.received_us - messages.event_us)
        LATENCIES.add("wait", messages.pulled_us - messages.received_us, count)
        for piece in self._decoder.decode(messages):
            if isinstance(piece, Block) and isinstance(piece.origin, MessageOrigin):
                yield dataclasses.replace(piece.origin, decoded_us=now_us()), piece.batch
            elif isinstance(piece, RejectedRow):
                self.reject_undecoded(piece, messages.source, self._decoder.format)


class Measure(beam.DoFn):  # type: ignore[misc]
    """Passes predicted rows on, and notes how long the model took."""

    def process(self, element: tuple[MessageOrigin, pa.RecordBatch]) -> Iterator[Any]:
        origin, batch = element
        LATENCIES.add("model", now_us() - origin.decoded_us, batch.num_rows)
        yield element


def build(pipeline: beam.Pipeline, plan: Plan, read: beam.PTransform, reader: Reader, to_stderr: bool) -> None:
    """Adds the flow of a stream to a pipeline.

    Args:
      pipeline: where to.
      plan: what to do.
      read: gives Messages.
      reader: of the messages' format.
      to_stderr: rows that are shown go to standard error.
    """
    config = plan.config
    letters, window_s = config.dead_letters_path, config.output.window_s
    handler = make_handler(
        plan.model,
        columns=config.source.columns,
        defaults=config.source.defaults,
        max_rows=config.batching.max_rows,
        model_version=plan.tells_version,
        # The source has formed the micro-batch; it does not wait for another.
        gather=False,
    )
    decode = Decode(reader, config.source.format, letters, plan.model.id).rolling(window_s)
    batches = typed(pipeline | "Source" >> read | "Decode" >> beam.ParDo(decode), Rows)
    predicted, rejected = batches | "Predict" >> Predict(Keyed(handler)).with_exception_handling()
    reject = RejectUnpredicted(letters, "", plan.model.id, plan.key_column).rolling(window_s)
    _ = rejected | "DeadLetters" >> beam.ParDo(reject)
    predicted = typed(predicted | "Measure" >> beam.ParDo(Measure()), Rows)
    sink = destination(plan).sink()
    if config.output.show:
        show = ShowRows(plan.output, plan.key_column, config.output.show, to_stderr, last=sink is None)
        _ = predicted | "Show" >> beam.ParDo(show)
    if sink is not None:
        _ = predicted | "Sink" >> beam.ParDo(sink.rolling(window_s))
