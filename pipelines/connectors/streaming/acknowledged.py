"""Sources whose messages are acknowledged when what they became is durable: what Pub/Sub and Kafka have in common.

A session is the connection: it fetches ahead, hands out messages, and acknowledges those that it is told of. Marks
travel through the runner; sessions cannot, and stay in this process.
"""

from __future__ import annotations

import struct
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from apache_beam.coders import Coder, registry
from apache_beam.io.unbounded_source import UnboundedReader, UnboundedSource
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

from pipelines.clock import now_us
from pipelines.connectors.streaming.batch_sizing import PACE
from pipelines.connectors.streaming.stop import STOPPING
from pipelines.connectors.streaming.unbounded import Mark, MarkCoder, linger_s
from pipelines.rows.messages import Messages


class MessageSession(Protocol):
    """Represents a connection to what is read."""

    @property
    def number(self) -> int:
        """Returns the number of the last take that gave messages; 0 before the first."""

    def start(self) -> None:
        """Connects, and begins to fetch."""

    def take(self, rows: int, linger_s: float, wait_s: float, stopping: Callable[[], bool]) -> Any:
        """Hands out messages; returns nothing if none came.

        Args:
          rows: at most so many.
          linger_s: how long to wait for the first.
          wait_s: how long, after the first came, to wait for more.
          stopping: whether waiting should end, with nothing.
        """

    def acknowledge(self, number: int) -> None:
        """Marks what was handed out up to a take as done."""

    def drain(self, timeout_s: float) -> int:
        """Waits for the acknowledgements under way; gives how many messages have none."""

    def stop(self) -> None:
        """Fetches no more."""

    def close(self) -> None:
        """Ends; what was not acknowledged is delivered again."""


_sessions: dict[bytes, MessageSession] = {}


def sessions() -> list[MessageSession]:
    """Returns those that are open in this process."""
    return list(_sessions.values())


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
class TakenMark(Mark):
    """Describes how far a session has got.

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


class TakenMarkCoder(MarkCoder):
    """Encodes how far a session has got."""

    mark = TakenMark


registry.register_coder(TakenMark, TakenMarkCoder)


@dataclass(frozen=True, kw_only=True)
class AcknowledgedSource(UnboundedSource):  # type: ignore[misc]  # Beam's classes are untyped
    """Reads by a session; its elements are `Messages`, one micro-batch each.

    Attributes:
      messages: the reader ends after so many; None: no limit.
      duration_s: the reader ends after so long; None: no limit.
      max_rows: of a micro-batch.
      max_wait_ms: how long a micro-batch waits, after its first message came, to fill.
      alone: whether the session of a reader that another one replaces is to be closed before that begins.
    """

    alone: ClassVar[bool] = False

    messages: int | None = None
    duration_s: float | None = None
    max_rows: int = 16_384
    max_wait_ms: float = 50.0

    @abstractmethod
    def session(self) -> MessageSession:
        """Returns a new one."""

    @abstractmethod
    def formed(self, taken: Any, first: int) -> Messages:
        """Returns the micro-batch of what a session handed out; `first` messages were read before it."""

    def split(self, desired_num_splits: int, options: Any = None) -> Iterable[AcknowledgedSource]:
        return [self]

    def create_reader(self, options: Any, checkpoint_mark: TakenMark | None) -> AcknowledgedReader:
        return AcknowledgedReader(self, checkpoint_mark)

    def get_checkpoint_mark_coder(self) -> Coder:
        return TakenMarkCoder()

    def default_output_coder(self) -> Coder:
        return registry.get_coder(Messages)


class AcknowledgedReader(UnboundedReader):  # type: ignore[misc]
    """Reads a source.

    Args:
      source: what is read.
      mark: of an earlier reader, whose limits still hold.
    """

    def __init__(self, source: AcknowledgedSource, mark: TakenMark | None = None) -> None:
        self._source = source
        self._before = mark
        self._mark = TakenMark(uuid.uuid4().bytes, 0, *((mark.messages, mark.start_us) if mark else (0, 0)))
        self._session = source.session()
        self._current: Messages | None = None
        self._marked = 0
        self._finished = False
        self._came = time.monotonic()

    def start(self) -> bool:
        if not self._mark.start_us:
            self._mark = replace(self._mark, start_us=now_us())
        if self._source.alone and self._before is not None:
            before = _sessions.pop(self._before.token, None)
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
            linger = linger_s(mark.taken != self._marked, time.monotonic() - self._came)
            taken = self._session.take(rows, linger, pace.max_wait_ms / 1000, self._is_over)
            if taken:
                self._came = time.monotonic()
                self._current = source.formed(taken, mark.messages)
                self._mark = replace(mark, taken=self._session.number, messages=mark.messages + len(self._current))
                return True
        if rows <= 0 or self._is_over():
            self._finished = True
            self._session.stop()
        return False

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

    def get_checkpoint_mark(self) -> TakenMark:
        self._marked = self._mark.taken
        return self._mark

    def close(self) -> None:
        """Takes no more. What was handed out can still be acknowledged: its bundle is not complete yet."""
        self._session.stop()
