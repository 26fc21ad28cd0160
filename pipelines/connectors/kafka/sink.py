"""Writes rows of a stream to a Kafka topic. At least once: readers that drop repeated keys see each once.

What is sent again because an answer was lost is not written twice; rows whose messages come again from the source are.
A message is one object of JSON. Its key, and its header `source_id`, is the row's key, the same whenever the row is
written again; its timestamp is the event's.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipelines.config.kafka import KafkaOutput
from pipelines.connectors.kafka.client import Cluster
from pipelines.connectors.kafka.producer import KafkaTopic
from pipelines.connectors.writing.payloads import payloads
from pipelines.connectors.writing.row_writer import Answers, OutputRows, RowWriter
from pipelines.plan import Plan
from pipelines.rows.messages import KEY_NAME, MessageOrigin


class KafkaRowWriter(RowWriter):
    """Sends each row as a message; Kafka has them when its answers are taken.

    Args:
      plan: the plan of the run.
      output: the topic to write to.
      cluster: the brokers of the topic.
    """

    def __init__(self, plan: Plan, output: KafkaOutput, cluster: Cluster) -> None:
        self.columns = plan.output
        self._headers = output.headers
        self._name = output.topic
        self._cluster = cluster

    def open(self) -> None:
        self._topic = KafkaTopic(self._cluster, self._name)

    def close(self) -> None:
        self._topic.close()

    def write(self, rows: OutputRows) -> Answers:
        origin = rows.origin
        assert isinstance(origin, MessageOrigin)
        keys = rows.keys.cast(pa.binary()).to_pylist()
        times_ms = (origin.event_us()[rows.rows] // 1000).tolist()
        headers = _headers(keys, origin.attributes(rows.rows)) if self._headers else [None] * len(keys)
        return self._topic.send(keys, payloads(rows.encoded), times_ms, headers)


def _headers(keys: list[bytes], passed: pa.MapArray | None) -> list[Any]:
    """Returns the headers of each message: those that came with its row, and its key."""
    if passed is None:
        return [[(KEY_NAME, key)] for key in keys]
    return [
        [*(each for each in came or () if each[0] != KEY_NAME), (KEY_NAME, key)]
        for came, key in zip(passed.to_pylist(), keys, strict=True)
    ]
