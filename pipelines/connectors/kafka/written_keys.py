"""Reads back the keys of what a stream has written to a Kafka topic, so that it is not written again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipelines.config.errors import ConfigError
from pipelines.connectors.kafka.client import ANSWER_WITHIN_S, Cluster, Partition, first_words

_AT_ONCE = 10_000
_SILENT_FOR_S = 10.0


def written_keys(
    where: str, cluster: Cluster, partitions: Sequence[Partition], seconds: float
) -> Iterator[tuple[float, pa.Array]]:
    """Returns keys of messages that tell of the last seconds, or were written behind such: (age in seconds, keys).

    Args:
      where: the part of the config that names the topic.
      cluster: the brokers to call.
      partitions: all of the topic.
      seconds: how far to look back.

    Raises:
      ConfigError: the topic cannot be read.
    """
    settings = {
        "group.id": "predict-reads-keys-back",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": False,
        "queued.max.messages.kbytes": 16_384,
    }
    consumer = Consumer({**cluster.settings(), **settings})
    try:
        yield from _read(consumer, partitions, seconds)
    except KafkaException as raised:
        raise ConfigError(
            [f"{where}: dedupe reads keys back from what was written, and cannot: {first_words(raised.args[0])}"]
        ) from None
    finally:
        consumer.close()


def _read(consumer: Consumer, partitions: Sequence[Partition], seconds: float) -> Iterator[tuple[float, pa.Array]]:
    since_ms = int((time.time() - seconds) * 1000)
    wanted = [TopicPartition(topic, number, since_ms) for topic, number in partitions]
    begin, end = [], {}
    for each in consumer.offsets_for_times(wanted, timeout=ANSWER_WITHIN_S):
        low, high = consumer.get_watermark_offsets(each, timeout=ANSWER_WITHIN_S)
        if each.offset >= 0 and high > max(low, each.offset):
            begin.append(each)
            end[each.topic, each.partition] = high
    consumer.assign(begin)
    heard = time.monotonic()
    while end:
        messages = consumer.consume(_AT_ONCE, timeout=1.0)
        keys = []
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            keys.append(message.key())
        if keys:
            heard = time.monotonic()
            yield 0.0, pa.array([key.decode("utf-8", "replace") for key in keys if key is not None], pa.string())
        positions = consumer.position([TopicPartition(*partition) for partition in end])
        end = {key: high for key, high in end.items() if all(p.offset < high for p in positions if _of(p) == key)}
        if end and time.monotonic() - heard > _SILENT_FOR_S:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def _of(partition: TopicPartition) -> Partition:
    return partition.topic, partition.partition
