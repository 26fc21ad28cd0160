"""Rows of a stream -> messages of a Kafka topic. At least once: effectively once for readers that drop repeated keys.

What is sent again because an answer was lost is not written twice; rows whose messages come again from the source are.
A message is one object of JSON. Its key, and its header `source_id`, is the row's key, the same whenever the row is
written again; its timestamp is the event's.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipelines.config.kafka import KafkaOutput
from pipelines.connectors.kafka.client import Cluster
from pipelines.connectors.kafka.producer import Topic
from pipelines.connectors.writing.answered import Answers
from pipelines.connectors.writing.messages import WriteMessages
from pipelines.connectors.writing.payloads import payloads
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.plan import Plan
from pipelines.rows.messages import KEY_NAME, MessageOrigin
from pipelines.rows.origin import Positions


class WriteKafka(WriteMessages):
    """(MessageOrigin, record batch) -> nothing. Kafka has its rows when the next element comes, or the bundle ends.

    Args:
      plan: what to do.
      output: where to.
      cluster: its brokers.
      dead_letters: where rows go that are refused.
    """

    def __init__(self, plan: Plan, output: KafkaOutput, cluster: Cluster, dead_letters: DeadLetterPlace) -> None:
        super().__init__(plan, dead_letters)
        self._headers = output.headers
        self._name = output.topic
        self._cluster = cluster

    def setup(self) -> None:
        self._topic = Topic(self._cluster, self._name)

    def teardown(self) -> None:
        self._topic.close()
        super().teardown()

    def send(self, encoded: pa.RecordBatch, origin: MessageOrigin, rows: Positions) -> Answers:
        keys = self.keys.take(self.at(rows)).cast(pa.binary()).to_pylist()
        times_ms = (origin.event_us()[rows] // 1000).tolist()
        headers = self._headers_of(keys, origin, rows) if self._headers else [None] * len(keys)
        return self._topic.send(keys, payloads(encoded), times_ms, headers)

    @staticmethod
    def _headers_of(keys: list[bytes], origin: MessageOrigin, rows: Positions) -> list[Any]:
        passed = origin.attributes(rows)
        if passed is None:
            return [[(KEY_NAME, key)] for key in keys]
        return [
            [*(each for each in came or () if each[0] != KEY_NAME), (KEY_NAME, key)]
            for came, key in zip(passed.to_pylist(), keys, strict=True)
        ]
