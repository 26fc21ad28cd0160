"""Dead letters of a stream as messages of a Kafka topic: the object of JSON of the files, its key as the record's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.config.kafka import KafkaDeadLetters
from pipelines.connectors.kafka import client as kafka_client
from pipelines.connectors.kafka.client import Cluster
from pipelines.connectors.kafka.producer import Topic
from pipelines.dead_letters.buffered import BufferedWriter
from pipelines.dead_letters.place import DeadLetterPlace, DeadLetterWriter
from pipelines.rows.origin import DeadLetter


@dataclass(frozen=True)
class KafkaDeadLetterPlace(DeadLetterPlace):
    """A topic of Kafka.

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


class _KafkaWriter(BufferedWriter[Topic]):
    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__()
        self._cluster = cluster
        self._name = name

    def connected(self) -> Topic:
        return Topic(self._cluster, self._name)

    def send(self, service: Topic, letters: Sequence[DeadLetter]) -> dict[int, str]:
        keys = [letter.key.encode("utf-8", "backslashreplace") for letter in letters]
        values = [letter.to_json().rstrip(b"\n") for letter in letters]
        return service.send(keys, values, [time.time_ns() // 1_000_000] * len(letters), [None] * len(letters))()
