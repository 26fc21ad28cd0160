"""Publishes simulated messages: to standard output, a Pub/Sub topic, a Kafka topic."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from model import terminal
from pipelines.connectors.simulated.generator import Made
from pipelines.rows.messages import KEY_NAME

if TYPE_CHECKING:
    from pipelines.connectors.kafka import producer
    from pipelines.connectors.kafka.client import Cluster
    from pipelines.connectors.pubsub import publisher

TIMESTAMP = "timestamp"
"""The attribute of a message of Pub/Sub with the time of what it tells."""


class Publisher(ABC):
    """Takes messages.

    Attributes:
      name: where they go, in words.
      most: how many are best sent together.
    """

    name: str
    most: int

    @abstractmethod
    def open(self) -> None:
        """Gets ready.

        Raises:
          ConfigError: the place is not there, or does not answer.
        """

    @abstractmethod
    def send(self, made: Made) -> dict[int, str]:
        """Publishes messages, and returns when they are where they belong; waits while that place is away.

        Returns:
          Why messages are refused, by their index.
        """

    @abstractmethod
    def close(self) -> None:
        """Disconnects."""


class ToOutput(Publisher):
    """Writes lines to standard output."""

    name = "standard output"
    most = 8_192

    def open(self) -> None:
        """Does nothing: standard output takes anything."""

    def send(self, made: Made) -> dict[int, str]:
        if sys.stdout.isatty():
            terminal.print_text(made.lines().decode("utf-8", "backslashreplace").removesuffix("\n"))
        else:
            sys.stdout.buffer.write(made.lines())
            sys.stdout.buffer.flush()
        return {}

    def close(self) -> None:
        """Does nothing: standard output stays open."""


class ToPubSub(Publisher):
    """Publishes messages to a Pub/Sub topic, with their keys and event times as attributes.

    Args:
      topic: projects/<project>/topics/<name>.
    """

    most = 8_000

    def __init__(self, topic: str) -> None:
        self.name = topic
        self._topic: publisher.Topic | None = None

    def open(self) -> None:
        from pipelines.connectors.pubsub import client as pubsub
        from pipelines.connectors.pubsub import publisher

        pubsub.check_topic("--to", self.name)
        self._topic = publisher.Topic(self.name)

    def send(self, made: Made) -> dict[int, str]:
        import numpy as np

        from pipelines.clock import timestamps

        assert self._topic is not None
        message = self._topic.message
        times = timestamps(np.array(made.event_us)).to_pylist()
        return self._topic.publish(
            [
                message(payload, {KEY_NAME: key, TIMESTAMP: time})
                for payload, key, time in zip(made.payloads, made.keys, times, strict=True)
            ]
        )

    def close(self) -> None:
        if self._topic is not None:
            self._topic.close()


class ToKafka(Publisher):
    """Sends messages to a Kafka topic, with their keys and event times.

    Args:
      topic: its name.
      cluster: the brokers.
    """

    most = 16_384

    def __init__(self, topic: str, cluster: Cluster) -> None:
        self.name = f"{topic} at {cluster.servers}"
        self._name = topic
        self._cluster = cluster
        self._topic: producer.KafkaTopic | None = None

    def open(self) -> None:
        from pipelines.config.errors import ConfigError
        from pipelines.connectors.kafka import client as kafka_client
        from pipelines.connectors.kafka import producer

        try:
            kafka_client.partitions_of("kafka", self._cluster, [self._name])
        except ConfigError as error:
            raise ConfigError(_as_options(problem) for problem in error.problems) from None
        self._topic = producer.KafkaTopic(self._cluster, self._name)

    def send(self, made: Made) -> dict[int, str]:
        assert self._topic is not None
        keys = [key.encode() for key in made.keys]
        times_ms = [event // 1000 for event in made.event_us]
        return self._topic.send(keys, made.payloads, times_ms, [None] * len(keys))()

    def close(self) -> None:
        if self._topic is not None:
            self._topic.close()


def _as_options(problem: str) -> str:
    """A line about a config, as one about the command line."""
    for place, option in (("topic", "--to"), ("bootstrap_servers", "--bootstrap-servers"), ("security", "--security")):
        problem = problem.replace(f"kafka.{place}", option)
    return problem
