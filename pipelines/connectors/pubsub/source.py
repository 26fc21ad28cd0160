"""Reads messages of a Pub/Sub subscription; at least once.

A message is acknowledged when the runner has committed the bundle that it was in, and what the bundle wrote is durable.
What was not acknowledged when a run ends, or is killed, Pub/Sub delivers again.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.clock import now_us
from pipelines.connectors.pubsub.pulled import Chunk
from pipelines.connectors.pubsub.subscriber import Subscriber
from pipelines.connectors.streaming.acknowledged import AcknowledgedSource
from pipelines.rows.messages import Messages


@dataclass(frozen=True, kw_only=True)
class PubSubStream(AcknowledgedSource):
    """Reads a subscription; its elements are `Messages`, one micro-batch each.

    Attributes:
      subscription: projects/<project>/subscriptions/<name>.
      key: whether messages carry keys: the attribute that is one ("" for the message's id); None: they do not.
      timestamp: the attribute with the event time; None: the time of publishing.
      pullers: threads that pull at the same time.
      attributes: whether the messages' attributes are kept beside their payloads.
    """

    subscription: str
    key: str | None = ""
    timestamp: str | None = None
    pullers: int = 4
    attributes: bool = False

    def session(self) -> Subscriber:
        return Subscriber(self.subscription, self.key or None, self.timestamp, self.pullers, self.attributes)

    def formed(self, taken: list[Chunk], first: int) -> Messages:
        payloads = pa.array(itertools.chain.from_iterable(chunk.payloads for chunk in taken), pa.binary())
        keys = None
        if self.key is not None:
            keys = pa.array(itertools.chain.from_iterable(chunk.keys for chunk in taken), pa.string())
        event_us = np.concatenate([np.array(chunk.event_us, np.int64) for chunk in taken])
        numbers = np.arange(first, first + len(payloads))
        received_us = min(chunk.received_us for chunk in taken)
        attributes = None
        if self.attributes:
            came = itertools.chain.from_iterable(chunk.attributes or () for chunk in taken)
            attributes = pa.array([list(each.items()) for each in came], pa.map_(pa.string(), pa.binary()))
        return Messages(self.subscription, payloads, numbers, event_us, received_us, now_us(), keys, attributes)
