"""Holds messages of Pub/Sub that were pulled together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.clock import now_us

MOST_PULLED = 1_000
"""Messages of a pull, and of a request about messages: Pub/Sub takes 512 KiB of ids."""


_LATEST_US = 253_402_300_800_000_000
"""The end of the year 9999."""


@dataclass(eq=False)
class Chunk:
    """Holds messages that came together.

    Attributes:
      payloads: their bytes.
      keys: what identifies each: an attribute, or the message's id.
      event_us: when what they tell happened, microseconds since the epoch.
      ack_ids: by which they are acknowledged.
      received_us: when they came.
      pulled: the same, by the monotonic clock.
      attributes: the attributes of each, if they are wanted.
      extended: when their deadline was last extended; None: never.
    """

    payloads: list[bytes]
    keys: list[str]
    event_us: list[int]
    ack_ids: list[str]
    received_us: int
    pulled: float
    attributes: list[dict[str, str]] | None = None
    extended: float | None = None

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def nbytes(self) -> int:
        """Returns the bytes of the payloads."""
        return sum(map(len, self.payloads))

    def split(self, count: int) -> tuple[Chunk, Chunk]:
        """Returns the first messages, and the others."""
        return self._part(slice(count)), self._part(slice(count, None))

    def _part(self, which: slice) -> Chunk:
        lists = self.payloads[which], self.keys[which], self.event_us[which], self.ack_ids[which]
        attributes = None if self.attributes is None else self.attributes[which]
        return Chunk(*lists, self.received_us, self.pulled, attributes, self.extended)


def decoded(received: Any, key: str | None, timestamp: str | None, attributes: bool = False) -> Chunk:
    """Returns a chunk of messages as Pub/Sub's protocol has them.

    Args:
      received: ReceivedMessages.
      key: the attribute that identifies a message; messages without it go by their ids.
      timestamp: the attribute with the event time, RFC 3339 or milliseconds since the epoch; messages without one
        that can be read, and all if it is None, have the time they were published.
      attributes: whether the attributes are wanted.
    """
    payloads, keys, event_us, ack_ids = [], [], [], []
    for each in received:
        message = each.message
        payloads.append(message.data)
        ack_ids.append(each.ack_id)
        keys.append((key and message.attributes.get(key)) or message.message_id)
        event = parsed_time(message.attributes.get(timestamp, "")) if timestamp else None
        published = message.publish_time
        event_us.append(published.seconds * 1_000_000 + published.nanos // 1000 if event is None else event)
    came = [dict(each.message.attributes) for each in received] if attributes else None
    return Chunk(payloads, keys, event_us, ack_ids, now_us(), time.monotonic(), came)


def parsed_time(text: str) -> int | None:
    """Returns microseconds since the epoch of an attribute; None if it is no time."""
    from google.protobuf.timestamp_pb2 import Timestamp

    try:
        if text.isdecimal():
            found = int(text) * 1000
            return found if found < _LATEST_US else None
        time = Timestamp()
        time.FromJsonString(text)
        return int(time.ToMicroseconds())
    except ValueError:
        return None


def _groups(chunks: list[Chunk]) -> Iterator[list[Chunk]]:
    """Chunks for one request each: none has more than MOST_PULLED messages."""
    group: list[Chunk] = []
    count = 0
    for chunk in chunks:
        if group and count + len(chunk) > MOST_PULLED:
            yield group
            group, count = [], 0
        group.append(chunk)
        count += len(chunk)
    if group:
        yield group
