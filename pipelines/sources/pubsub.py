"""Messages of a Pub/Sub subscription; at least once.

A message is acknowledged when the runner has committed the bundle that it was in, and what the bundle wrote is durable.
What was not acknowledged when a run ends, or is killed, Pub/Sub delivers again.
"""

from __future__ import annotations

import itertools
import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from apache_beam.coders import Coder, registry
from apache_beam.io.unbounded_source import UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from pipelines.sources.unbounded import IDLE_LINGER_S, LINGER_S, Mark, MarkCoder
from pipelines.streams.messages import Messages
from pipelines.streams.pace import PACE
from pipelines.streams.schedule import now_us
from pipelines.streams.stop import STOPPING
from pipelines.streams.subscription import Session

_sessions: dict[bytes, Session] = {}
"""What is read in this process: marks travel through the runner, connections cannot."""


def finish(all_is_done: bool = False, timeout_s: float = 30.0) -> int:
    """Waits for the acknowledgements under way in this process, and gives all else back.

    Args:
      all_is_done: what was handed out is acknowledged too, though the runner has not told of it.
      timeout_s: how long to wait.

    Returns:
      How many messages should have been acknowledged, and could not: they will be delivered again.
    """
    left = 0
    for token in list(_sessions):
        session = _sessions.pop(token)
        session.stop()
        if all_is_done:
            session.acknowledge(session.number)
        left += session.drain(timeout_s)
        session.close()
    return left


@dataclass(frozen=True)
class PubSubMark(Mark):
    """How far a session has got.

    Attributes:
      token: of the session; only the process that has it can acknowledge its messages.
      taken: number of the last micro-batch.
      messages: how many were read, in this session and those before it.
      start_us: when the first session began, microseconds since the epoch.
    """

    FORMAT = struct.Struct("<16sqqq")

    token: bytes
    taken: int
    messages: int
    start_us: int

    def finalize_checkpoint(self) -> None:
        """Acknowledges; what another process read, that can do, or nobody: then it is delivered again."""
        session = _sessions.get(self.token)
        if session is not None:
            session.acknowledge(self.taken)


class PubSubMarkCoder(MarkCoder):
    """Of a mark."""

    mark = PubSubMark


registry.register_coder(PubSubMark, PubSubMarkCoder)


@dataclass(frozen=True, kw_only=True)
class PubSubSource(UnboundedSource):  # type: ignore[misc]
    """A subscription; its elements are `Messages`, one micro-batch each.

    Attributes:
      subscription: projects/<project>/subscriptions/<name>.
      key: whether messages carry keys: the attribute that is one ("" for the message's id); None: they do not.
      timestamp: the attribute with the event time; None: the time of publishing.
      pullers: threads that pull at the same time.
      attributes: whether the messages' attributes are kept beside their payloads.
      messages: the reader ends after so many; None: no limit.
      duration_s: the reader ends after so long; None: no limit.
      max_rows: of a micro-batch.
      max_wait_ms: how long a micro-batch waits, after its first message came, to fill.
    """

    subscription: str
    key: str | None = ""
    timestamp: str | None = None
    pullers: int = 4
    attributes: bool = False
    messages: int | None = None
    duration_s: float | None = None
    max_rows: int = 16_384
    max_wait_ms: float = 50.0

    def split(self, desired_num_splits: int, options: Any = None) -> Iterable[PubSubSource]:
        return [self]

    def create_reader(self, options: Any, checkpoint_mark: PubSubMark | None) -> PubSubReader:
        return PubSubReader(self, checkpoint_mark)

    def get_checkpoint_mark_coder(self) -> Coder:
        return PubSubMarkCoder()

    def default_output_coder(self) -> Coder:
        return registry.get_coder(Messages)


class PubSubReader(UnboundedReader):  # type: ignore[misc]
    """Reads a subscription.

    Args:
      source: what is read.
      mark: of an earlier reader, whose limits still hold.
    """

    def __init__(self, source: PubSubSource, mark: PubSubMark | None = None) -> None:
        self._source = source
        self._mark = PubSubMark(uuid.uuid4().bytes, 0, *((mark.messages, mark.start_us) if mark else (0, 0)))
        self._session = Session(
            source.subscription, source.key or None, source.timestamp, source.pullers, source.attributes
        )
        self._current: Messages | None = None
        self._marked = 0
        self._finished = False

    def start(self) -> bool:
        if not self._mark.start_us:
            self._mark = replace(self._mark, start_us=now_us())
        _sessions[self._mark.token] = self._session
        self._session.start()
        return self.advance()

    def advance(self) -> bool:
        """Forms the next micro-batch, waiting for its messages; False after a while without any, and at the end.

        Beam would have it return at once instead of waiting. But an idle reader that does so makes the in-process
        runner spin through bundles, and the runner does nothing else meanwhile.
        """
        self._current = None
        source, mark = self._source, self._mark
        pace = PACE.or_else(source.max_rows, source.max_wait_ms)
        rows = pace.max_rows if source.messages is None else min(pace.max_rows, source.messages - mark.messages)
        if rows > 0 and not self._is_over():
            # A bundle that has messages is to end soon: they are acknowledged then.
            linger_s = IDLE_LINGER_S if mark.taken == self._marked else LINGER_S
            chunks = self._session.take(rows, linger_s, pace.max_wait_ms / 1000, self._is_over)
            if chunks:
                self._current = self._formed(chunks)
                self._mark = replace(
                    mark, taken=self._session.number, messages=mark.messages + len(self._current)
                )  # fmt: skip
                return True
        if rows <= 0 or self._is_over():
            self._finished = True
            self._session.stop()
        return False

    def _formed(self, chunks: list[Any]) -> Messages:
        source, first = self._source, self._mark.messages
        payloads = pa.array(itertools.chain.from_iterable(chunk.payloads for chunk in chunks), pa.binary())
        keys = None
        if source.key is not None:
            keys = pa.array(itertools.chain.from_iterable(chunk.keys for chunk in chunks), pa.string())
        event_us = np.concatenate([np.array(chunk.event_us, np.int64) for chunk in chunks])
        numbers = np.arange(first, first + len(payloads))
        received_us = min(chunk.received_us for chunk in chunks)
        attributes = None
        if source.attributes:
            came = itertools.chain.from_iterable(chunk.attributes for chunk in chunks)
            attributes = pa.array([list(each.items()) for each in came], pa.map_(pa.string(), pa.binary()))
        return Messages(source.subscription, payloads, numbers, event_us, received_us, now_us(), keys, attributes)

    def _is_over(self) -> bool:
        if STOPPING.is_set():
            return True
        limit = self._source.duration_s
        return limit is not None and now_us() >= self._mark.start_us + limit * 1e6

    def get_current(self) -> Messages:
        if self._current is None:
            raise RuntimeError("the reader is at no message")
        return self._current

    def get_current_timestamp(self) -> Timestamp:
        return Timestamp(micros=int(self.get_current().event_us.min()))

    def get_watermark(self) -> Timestamp:
        if self._finished:
            return MAX_TIMESTAMP
        # An estimate: what is published later may tell of anything.
        return Timestamp(micros=now_us()) if self._current is None else self.get_current_timestamp()

    def get_checkpoint_mark(self) -> PubSubMark:
        self._marked = self._mark.taken
        return self._mark

    def close(self) -> None:
        """Pulls no more. What was handed out can still be acknowledged: its bundle is not committed yet."""
        self._session.stop()
