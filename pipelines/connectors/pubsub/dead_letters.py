"""Writes a stream's dead letters as messages of a Pub/Sub topic, each with its key as an attribute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.config.pubsub import PubSubDeadLetters
from pipelines.connectors.pubsub import client as pubsub
from pipelines.connectors.pubsub.publisher import Topic
from pipelines.dead_letters.buffered import BufferedWriter
from pipelines.dead_letters.place import DeadLetterPlace, DeadLetterWriter
from pipelines.rows.messages import KEY_NAME
from pipelines.rows.origin import DeadLetter

_LONGEST_ATTRIBUTE = 1_024


@dataclass(frozen=True)
class PubSubDeadLetterPlace(DeadLetterPlace):
    """Puts dead letters into a topic of Pub/Sub.

    Attributes:
      config: which one.
    """

    config: PubSubDeadLetters

    def check(self) -> None:
        pubsub.check_topic("dead_letters.topic", self.config.topic)

    def open(self) -> DeadLetterWriter:
        return _PubSubWriter(self.config.topic)

    def describe(self) -> str:
        return self.config.topic


class _PubSubWriter(BufferedWriter[Topic]):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def connected(self) -> Topic:
        return Topic(self._name)

    def send(self, service: Topic, dead_letters: Sequence[DeadLetter]) -> dict[int, str]:
        message = service.message
        return service.publish(
            [
                message(dead_letter.to_json().rstrip(b"\n"), {KEY_NAME: _cut(dead_letter.key)})
                for dead_letter in dead_letters
            ]
        )


def _cut(key: str) -> str:
    """Shortens a key to what Pub/Sub takes as an attribute; the dead letter has all of it."""
    return key.encode("utf-8", "backslashreplace")[:_LONGEST_ATTRIBUTE].decode("utf-8", "ignore")
