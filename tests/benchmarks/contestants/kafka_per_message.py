"""Beam as its guides show it, on Kafka: an element for each message, a dict for each row, RunInference, a write a row.

The source is one of Beam's UnboundedSources around confluent-kafka, on FnApiRunner in this process. Batches are as
large as Beam's BatchElements chooses by default. What is read is committed when the runner has committed it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import apache_beam.runners.portability.fn_api_runner.fn_runner
from apache_beam.coders import Coder, PickleCoder
from apache_beam.io.unbounded_source import CheckpointMark, ReadFromUnboundedSource, UnboundedReader, UnboundedSource
from apache_beam.ml.inference.base import PredictionResult, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from tests.benchmarks.contestants.kafka_job import KafkaJob, main
from tests.benchmarks.contestants.stock import DictHandler

_consumers: dict[str, Consumer] = {}


@dataclasses.dataclass(frozen=True)
class Mark(CheckpointMark):  # type: ignore[misc]
    """The next offset of each partition, and how many messages were read."""

    group: str
    offsets: tuple[tuple[str, int, int], ...]
    messages: int

    def finalize_checkpoint(self) -> None:
        if self.offsets:
            _consumers[self.group].commit(offsets=[TopicPartition(*each) for each in self.offsets], asynchronous=False)


@dataclasses.dataclass(frozen=True)
class Source(UnboundedSource):  # type: ignore[misc]
    """A topic, up to a number of messages."""

    job: KafkaJob

    def split(self, desired_num_splits: int, options: Any = None) -> Iterable[Source]:
        return [self]

    def create_reader(self, options: Any, checkpoint_mark: Mark | None) -> Reader:
        return Reader(self.job)

    def get_checkpoint_mark_coder(self) -> Coder:
        return PickleCoder()

    def default_output_coder(self) -> Coder:
        return beam.coders.BytesCoder()


class Reader(UnboundedReader):  # type: ignore[misc]
    """Polls one message after the other."""

    def __init__(self, job: KafkaJob) -> None:
        self._job = job
        self._offsets: dict[tuple[str, int], int] = {}
        self._count = 0
        self._message: Message | None = None

    def start(self) -> bool:
        settings = {"bootstrap.servers": self._job.servers, "group.id": self._job.group}
        self._consumer = Consumer({**settings, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
        self._consumer.subscribe([self._job.topic])
        _consumers[self._job.group] = self._consumer
        return self.advance()

    def advance(self) -> bool:
        self._message = None if self._count >= self._job.messages else self._consumer.poll(0.5)
        if self._message is None:
            return False
        if self._message.error() is not None:
            raise RuntimeError(str(self._message.error()))
        self._offsets[self._message.topic(), self._message.partition()] = self._message.offset() + 1
        self._count += 1
        return True

    def get_current(self) -> bytes:
        return self._message.value()  # type: ignore[union-attr, no-any-return]

    def get_current_timestamp(self) -> Timestamp:
        return Timestamp(micros=self._message.timestamp()[1] * 1000)  # type: ignore[union-attr]

    def get_watermark(self) -> Timestamp:
        if self._message is None:
            return MAX_TIMESTAMP if self._count >= self._job.messages else Timestamp.now()
        return self.get_current_timestamp()

    def get_checkpoint_mark(self) -> Mark:
        offsets = tuple((topic, number, offset) for (topic, number), offset in self._offsets.items())
        return Mark(self._job.group, offsets, self._count)


class Write(beam.DoFn):  # type: ignore[misc]
    """A message for each prediction."""

    def __init__(self, job: KafkaJob) -> None:
        self._job = job

    def setup(self) -> None:
        self._producer = Producer({"bootstrap.servers": self._job.servers, "enable.idempotence": True})

    def process(self, result: PredictionResult) -> None:
        key = result.example["source_id"]
        value = json.dumps({"source_id": key, "predictions": float(result.inference)})
        while True:
            try:
                self._producer.produce(self._job.output, value, key)
                return
            except BufferError:
                self._producer.poll(0.1)

    def finish_bundle(self) -> None:
        self._producer.flush()


def run(job: KafkaJob) -> None:
    """Builds the pipeline and waits for its end."""
    options = PipelineOptions(["--runner=FnApiRunner", "--streaming", "--direct_num_workers=1"])
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | ReadFromUnboundedSource(Source(job), poll_interval=0.01, max_read_time_seconds=1.0)
            | beam.Map(json.loads)
            | RunInference(DictHandler(job.model))
            | beam.ParDo(Write(job))
        )


if __name__ == "__main__":
    # By their own names, not as __main__: the runner pickles them.
    from tests.benchmarks.contestants import kafka_per_message

    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    main(kafka_per_message.run)
