"""Reads messages of Kafka topics; at least once.

A message is committed when the runner has committed the bundle that it was in, and what the bundle wrote is durable.
What was not committed when a run ends, or is killed, or loses a partition to another member of its group, Kafka
delivers again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Message

from pipelines.clock import now_us
from pipelines.connectors.kafka.client import Cluster
from pipelines.connectors.kafka.consumer import Session
from pipelines.connectors.kafka.taken import Taken
from pipelines.connectors.streaming.acknowledged import AcknowledgedSource, sessions
from pipelines.rows.messages import Messages

_HEADERS = pa.map_(pa.string(), pa.binary())


def backlog() -> int | None:
    """Returns how many messages wait in the partitions that this process reads; None if it reads none."""
    found = [session for session in sessions() if isinstance(session, Session)]
    return sum(session.backlog() for session in found) if found else None


@dataclass(frozen=True, kw_only=True)
class KafkaStream(AcknowledgedSource):
    """Topics, read as one of a group; its elements are `Messages`, one micro-batch each, of all partitions.

    Attributes:
      cluster: the brokers.
      topics: which.
      group: of consumers.
      keys: whether messages carry keys: those of their records.
      headers: whether the records' headers are kept beside their payloads.
    """

    # A session that goes on would keep its partitions.
    alone: ClassVar[bool] = True

    cluster: Cluster
    topics: tuple[str, ...]
    group: str
    keys: bool = True
    headers: bool = False

    def session(self) -> Session:
        return Session(self.cluster, self.topics, self.group)

    def formed(self, taken: Taken, first: int) -> Messages:
        found, pulled_us = taken.messages, now_us()
        names = pa.array([f"{topic}[{number}]" for topic, number in taken.partitions], pa.string())
        event_us = np.fromiter((each.timestamp()[1] for each in found), np.int64, len(found)) * 1000
        return Messages(
            f"topic {', '.join(self.topics)}",
            pa.array(list(map(Message.value, found)), pa.binary()),
            taken.offsets,
            # -1: the record has none.
            np.where(event_us < 0, pulled_us, event_us),
            taken.received_us,
            pulled_us,
            _keys(taken, names) if self.keys else None,
            _headers(found) if self.headers else None,
            pa.DictionaryArray.from_arrays(taken.places.astype(np.int32), names),
        )


def _headers(messages: list[Message]) -> pa.MapArray | None:
    found = list(map(Message.headers, messages))
    return pa.array(found, _HEADERS) if any(found) else None


def _keys(taken: Taken, names: pa.Array) -> pa.Array:
    """What identifies messages: the records' keys, in hexadecimal if they are no text; without, where they are."""
    keys = list(map(Message.key, taken.messages))
    try:
        found = pa.array(keys, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        found = pa.array([_as_text(key) for key in keys], pa.string())
    if not found.null_count:
        return found
    places = names.take(pa.array(taken.places))
    return pc.coalesce(found, pc.binary_join_element_wise(places, pa.array(taken.offsets).cast(pa.string()), ":"))


def _as_text(key: bytes | None) -> str | None:
    try:
        return None if key is None else key.decode()
    except UnicodeDecodeError:
        return key.hex() if key else None
