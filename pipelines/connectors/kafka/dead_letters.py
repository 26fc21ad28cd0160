"""Writes a stream's dead letters as messages of a Kafka topic, each under its key as the record's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.config.kafka import KafkaDeadLetters
from pipelines.connectors.kafka import client as kafka_client
from pipelines.connectors.kafka.client import Cluster
from pipelines.connectors.kafka.producer import KafkaTopic
from pipelines.dead_letters.buffered import BufferedWriter
from pipelines.dead_letters.place import DeadLetterPlace, DeadLetterWriter
from pipelines.rows.origin import DeadLetter


@dataclass(frozen=True)
class KafkaDeadLetterPlace(DeadLetterPlace):
    """Puts dead letters into a topic of Kafka.

    Attributes:
      config: which one.
    """

    config: KafkaDeadLetters

    @property
    def _cluster(self) -> Cluster:
        return Cluster(self.config.bootstrap_servers, self.config.security)

    def check(self) -> None:
        kafka_client.partitions_of("dead_letters", self._cluster, [self.config.topic])

    def open(self) -> DeadLetterWriter:
        return _KafkaWriter(self._cluster, self.config.topic)

    def describe(self) -> str:
        return self.config.describe()


class _KafkaWriter(BufferedWriter[KafkaTopic]):
    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__()
        self._cluster = cluster
        self._name = name

    def connected(self) -> KafkaTopic:
        return KafkaTopic(self._cluster, self._name)

    def send(self, service: KafkaTopic, dead_letters: Sequence[DeadLetter]) -> dict[int, str]:
        keys = [dead_letter.key.encode("utf-8", "backslashreplace") for dead_letter in dead_letters]
        values = [dead_letter.to_json().rstrip(b"\n") for dead_letter in dead_letters]
        return service.send(
            keys, values, [time.time_ns() // 1_000_000] * len(dead_letters), [None] * len(dead_letters)
        )()
