"""Holds messages that were taken from Kafka together, and where each of them was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.connectors.kafka.client import Partition

if TYPE_CHECKING:
    from confluent_kafka import Message

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Taken:
    """Holds messages that were handed out together.

    Attributes:
      messages: as the client has them.
      offsets: their numbers in their partitions, int64 [messages].
      partitions: those that they come from.
      places: index into `partitions` of each, int64 [messages].
      received_us: when the first came.
    """

    messages: list[Message]
    offsets: Numbers
    partitions: list[Partition]
    places: Numbers
    received_us: int


def handed_out(found: list[Message], topics: Sequence[str], received_us: int) -> Taken:
    """Returns messages of topics, with their places."""
    from confluent_kafka import Message

    count = len(found)
    offsets = np.fromiter(map(Message.offset, found), np.int64, count)
    codes = np.fromiter(map(Message.partition, found), np.int64, count)
    if len(topics) > 1:
        numbers = {topic: number for number, topic in enumerate(topics)}
        codes += np.fromiter((numbers[str(each.topic())] << 32 for each in found), np.int64, count)
    known, places = np.unique(codes, return_inverse=True)
    partitions = [(topics[code >> 32], code & 0xFFFFFFFF) for code in known.tolist()]
    return Taken(found, offsets, partitions, places, received_us)


def place_of(message: Message) -> Partition:
    """Returns the topic and partition of a message."""
    return message.topic(), message.partition()  # type: ignore[return-value]


def size_of(messages: Sequence[Message]) -> int:
    """Returns the bytes of payloads, at least one a message."""
    return sum(map(len, messages))
