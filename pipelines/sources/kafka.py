"""Messages of Kafka topics; at least once.

A message is committed when the runner has committed the bundle that it was in, and what the bundle wrote is durable.
What was not committed when a run ends, or is killed, or loses a partition to another member of its group, Kafka
delivers again.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.coders import Coder, registry
from apache_beam.io.unbounded_source import UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp
from confluent_kafka import Message

from pipelines.sources.unbounded import IDLE_LINGER_S, LINGER_S, Mark, MarkCoder
from pipelines.streams.kafka_client import Cluster
from pipelines.streams.kafka_session import Session
from pipelines.streams.kafka_taken import Taken
from pipelines.streams.messages import Messages
from pipelines.streams.pace import PACE
from pipelines.streams.schedule import now_us
from pipelines.streams.stop import STOPPING

_sessions: dict[bytes, Session] = {}
"""What is read in this process: marks travel through the runner, connections cannot."""
_HEADERS = pa.map_(pa.string(), pa.binary())


def finish(all_is_done: bool = False, timeout_s: float = 30.0) -> int:
    """Waits for the commits under way in this process, and leaves the groups.

    Args:
      all_is_done: what was handed out is committed too, though the runner has not told of it.
      timeout_s: how long to wait.

    Returns:
      How many messages should have been committed, and could not: they will be delivered again.
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


def backlog() -> int | None:
    """How many messages wait in the partitions that this process reads; None if it reads none."""
    sessions = list(_sessions.values())
    return sum(session.backlog() for session in sessions) if sessions else None


@dataclass(frozen=True)
class KafkaMark(Mark):
    """How far a session has got.

    Attributes:
      token: of the session; only the process that has it can commit its messages.
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
        """Commits; what another process read, that can do, or nobody: then it is delivered again."""
        session = _sessions.get(self.token)
        if session is not None:
            session.acknowledge(self.taken)


class KafkaMarkCoder(MarkCoder):
    """Of a mark."""

    mark = KafkaMark


registry.register_coder(KafkaMark, KafkaMarkCoder)


@dataclass(frozen=True, kw_only=True)
class KafkaSource(UnboundedSource):  # type: ignore[misc]
    """Topics, read as one of a group; its elements are `Messages`, one micro-batch each, of all partitions.

    Attributes:
      cluster: the brokers.
      topics: which.
      group: of consumers.
      keys: whether messages carry keys: those of their records.
      headers: whether the records' headers are kept beside their payloads.
      messages: the reader ends after so many; None: no limit.
      duration_s: the reader ends after so long; None: no limit.
      max_rows: of a micro-batch.
      max_wait_ms: how long a micro-batch waits, after its first message came, to fill.
    """

    cluster: Cluster
    topics: tuple[str, ...]
    group: str
    keys: bool = True
    headers: bool = False
    messages: int | None = None
    duration_s: float | None = None
    max_rows: int = 16_384
    max_wait_ms: float = 50.0

    def split(self, desired_num_splits: int, options: Any = None) -> Iterable[KafkaSource]:
        return [self]

    def create_reader(self, options: Any, checkpoint_mark: KafkaMark | None) -> KafkaReader:
        return KafkaReader(self, checkpoint_mark)

    def get_checkpoint_mark_coder(self) -> Coder:
        return KafkaMarkCoder()

    def default_output_coder(self) -> Coder:
        return registry.get_coder(Messages)


class KafkaReader(UnboundedReader):  # type: ignore[misc]
    """Reads topics as a member of a group.

    Args:
      source: what is read.
      mark: of an earlier reader, whose limits still hold.
    """

    def __init__(self, source: KafkaSource, mark: KafkaMark | None = None) -> None:
        self._source = source
        self._before = mark
        self._mark = KafkaMark(uuid.uuid4().bytes, 0, *((mark.messages, mark.start_us) if mark else (0, 0)))
        self._session = Session(source.cluster, source.topics, source.group)
        self._current: Messages | None = None
        self._marked = 0
        self._finished = False

    def start(self) -> bool:
        if not self._mark.start_us:
            self._mark = replace(self._mark, start_us=now_us())
        # The reader that this one replaces would keep its partitions. What it did not commit is delivered again.
        before = _sessions.pop(self._before.token, None) if self._before else None
        if before is not None:
            before.close()
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
            # A bundle that has messages is to end soon: they are committed then.
            linger_s = IDLE_LINGER_S if mark.taken == self._marked else LINGER_S
            taken = self._session.take(rows, linger_s, pace.max_wait_ms / 1000, self._is_over)
            if taken is not None:
                self._current = self._formed(taken)
                self._mark = replace(
                    mark, taken=self._session.number, messages=mark.messages + len(self._current)
                )  # fmt: skip
                return True
        if rows <= 0 or self._is_over():
            self._finished = True
            self._session.stop()
        return False

    def _formed(self, taken: Taken) -> Messages:
        found, source, pulled_us = taken.messages, self._source, now_us()
        names = pa.array([f"{topic}[{number}]" for topic, number in taken.partitions], pa.string())
        event_us = np.fromiter((each.timestamp()[1] for each in found), np.int64, len(found)) * 1000
        return Messages(
            f"topic {', '.join(source.topics)}",
            pa.array(list(map(Message.value, found)), pa.binary()),
            taken.offsets,
            # -1: the record has none.
            np.where(event_us < 0, pulled_us, event_us),
            taken.received_us,
            pulled_us,
            _keys(taken, names) if source.keys else None,
            _headers(found) if source.headers else None,
            pa.DictionaryArray.from_arrays(taken.places.astype(np.int32), names),
        )

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
        # An estimate: what is written later may tell of anything.
        return Timestamp(micros=now_us()) if self._current is None else self.get_current_timestamp()

    def get_checkpoint_mark(self) -> KafkaMark:
        self._marked = self._mark.taken
        return self._mark

    def close(self) -> None:
        """Takes no more. What was handed out can still be committed: its bundle is not complete yet."""
        self._session.stop()


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
