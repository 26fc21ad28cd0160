"""Pulls messages of a Pub/Sub subscription ahead, holds them, and acknowledges them when somebody says so.

Threads of a session: pullers fill a queue, a keeper extends the deadlines of what is held, an acknowledger sends
acknowledgements. While the broker is away all of them try again; nothing is lost by that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from inference.log_throttle import LogThrottle, first_line
from pipelines.connectors.pubsub.client import make_client
from pipelines.connectors.pubsub.pulled import MOST_PULLED, Chunk, _groups, decoded

EXTENSION_S = 60
_EXTEND_EVERY_S = 20.0
# The shortest deadline of a subscription is 10 s.
_FIRST_EXTENSION_AFTER_S = 2.0
_KEEPER_PERIOD_S = 1.0
_LONGEST_LEASE_S = 3_600.0
_PULL_TIMEOUT_S = 30.0
_LAST_PULL_S = 1.0
_CALL_TIMEOUT_S = 10.0
_WARN_EVERY_S = 10.0
_POLL_S = 0.05
_FATAL = ("NotFound", "PermissionDenied", "Unauthenticated", "InvalidArgument")
_DETACHED = "FailedPrecondition"

_LOG = logging.getLogger(__name__)
_PATIENCE_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class SubscriptionError(RuntimeError):
    """Raised when the subscription cannot be read, and waiting does not help."""


@dataclass
class Subscriber:
    """Reads a subscription. Started once; the pullers end with `stop`, all else with `close`.

    Attributes:
      subscription: its full name.
      key: see `decoded`.
      timestamp: see `decoded`.
      pullers: threads that pull.
      attributes: see `decoded`.
      most_bytes: bytes pulled ahead, about: the pulls under way may exceed it.
      most_messages: messages pulled ahead, about.
    """

    subscription: str
    key: str | None = None
    timestamp: str | None = None
    pullers: int = 4
    attributes: bool = False
    most_bytes: int = 64 << 20
    most_messages: int = 50_000
    _condition: threading.Condition = field(default_factory=threading.Condition)
    _deadlines: threading.Lock = field(default_factory=threading.Lock)
    _queue: deque[Chunk] = field(default_factory=deque)
    _handed: dict[int, list[Chunk]] = field(default_factory=dict)
    _pending: deque[Chunk] = field(default_factory=deque)
    _held: dict[Chunk, None] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _closed: threading.Event = field(default_factory=threading.Event)
    _bytes: int = 0
    _messages: int = 0
    _number: int = 0
    _error: str = ""
    _warns: LogThrottle = field(default_factory=lambda: LogThrottle(_WARN_EVERY_S))

    def start(self) -> None:
        """Connects, and begins to pull."""
        self._client = make_client()
        named = [(self._acknowledge, "acknowledger"), (self._keep, "keeper")]
        named += [(self._pull, f"puller {n}") for n in range(self.pullers)]
        for target, name in named:
            thread = threading.Thread(target=target, name=f"pubsub {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    # Taken by the reader ---------------------------------------------------------------------------------------------

    def take(self, rows: int, linger_s: float, wait_s: float, stopping: Callable[[], bool]) -> list[Chunk]:
        """Hands out messages; from now on they wait for `acknowledge`.

        Args:
          rows: at most so many.
          linger_s: how long to wait for the first.
          wait_s: how long, after the first came, to wait for more.
          stopping: whether waiting should end, with nothing.

        Raises:
          SubscriptionError: the subscription is gone, or must not be read.
        """
        until = time.monotonic() + linger_s
        with self._condition:
            while not stopping():
                now = time.monotonic()
                if self._queue:
                    until = self._queue[0].pulled + wait_s
                if self._messages >= rows or (now >= until and self._queue):
                    return self._hand_out(rows)
                if self._error:
                    raise SubscriptionError(self._error)
                if now >= until:
                    return []
                # Whether to stop is not told to the condition.
                self._condition.wait(min(until - now, _POLL_S))
        return []

    def _hand_out(self, rows: int) -> list[Chunk]:
        found: list[Chunk] = []
        while rows and self._queue:
            chunk = self._queue.popleft()
            if len(chunk) > rows:
                del self._held[chunk]
                chunk, rest = chunk.split(rows)
                self._held |= {chunk: None, rest: None}
                self._queue.appendleft(rest)
            found.append(chunk)
            rows -= len(chunk)
            self._messages -= len(chunk)
            self._bytes -= chunk.nbytes
        self._number += 1
        self._handed[self._number] = found
        self._condition.notify_all()
        return found

    @property
    def number(self) -> int:
        """Returns the number of the last take that gave messages; 0 before the first."""
        return self._number

    def acknowledge(self, number: int) -> None:
        """Marks what was handed out up to a take as done: it will be acknowledged, soon."""
        with self._condition:
            for each in [each for each in self._handed if each <= number]:
                self._pending.extend(self._handed.pop(each))
            self._condition.notify_all()

    def drain(self, timeout_s: float) -> int:
        """Waits until what `acknowledge` was told of has been acknowledged; gives how many messages have not."""
        until = time.monotonic() + timeout_s
        with self._condition:
            while self._pending and (left := until - time.monotonic()) > 0:
                self._condition.wait(left)
            return sum(map(len, self._pending))

    def stop(self) -> None:
        """Pulls no more, and gives back what was not handed out."""
        self._stopped.set()
        with self._condition:
            left = list(self._queue)
            self._queue.clear()
            self._bytes = self._messages = 0
            self._condition.notify_all()
        self._give_back(left)

    def close(self) -> None:
        """Ends, and gives back all that was not acknowledged."""
        self.stop()
        # What a pull brings at the last moment is given back by its puller; one that waits is not waited for.
        until = time.monotonic() + _LAST_PULL_S
        for thread in self._threads[2:]:
            thread.join(max(0.0, until - time.monotonic()))
        with self._condition:
            left = list(self._held)
            self._closed.set()
            self._condition.notify_all()
        self._give_back(left)
        # Ends the pulls under way.
        self._client.close()
        for thread in self._threads:
            thread.join(_CALL_TIMEOUT_S)

    # Threads ---------------------------------------------------------------------------------------------------------

    def _pull(self) -> None:
        request = {"subscription": self.subscription, "max_messages": MOST_PULLED}
        call = partial(self._client.pull, request=request, retry=None, timeout=_PULL_TIMEOUT_S)
        while not self._stopped.is_set():
            with self._condition:
                if self._messages >= self.most_messages or self._bytes >= self.most_bytes:
                    self._condition.wait(_KEEPER_PERIOD_S)
                    continue
            response = self._patiently(call, self._stopped)
            received = () if response is None else type(response).pb(response).received_messages
            if not received:
                continue
            chunk = decoded(received, self.key, self.timestamp, self.attributes)
            with self._condition:
                late = self._stopped.is_set()
                if not late:
                    self._queue.append(chunk)
                    self._held[chunk] = None
                    self._messages += len(chunk)
                    self._bytes += chunk.nbytes
                    self._condition.notify_all()
            if late:
                self._give_back([chunk])

    def _acknowledge(self) -> None:
        while True:
            with self._condition:
                while not self._pending and not self._closed.is_set():
                    self._condition.wait(_KEEPER_PERIOD_S)
                if self._closed.is_set():
                    return
                chunks = next(_groups(list(self._pending)))
            request = {"subscription": self.subscription, "ack_ids": [id for chunk in chunks for id in chunk.ack_ids]}
            call = partial(self._client.acknowledge, request=request, retry=None, timeout=_CALL_TIMEOUT_S)
            self._patiently(call, self._closed, waits=True)
            if self._closed.is_set():
                return
            with self._condition:
                for chunk in chunks:
                    self._pending.popleft()
                    self._held.pop(chunk, None)
                self._condition.notify_all()

    def _keep(self) -> None:
        while not self._closed.wait(_KEEPER_PERIOD_S):
            now = time.monotonic()
            with self._condition:
                due = [chunk for chunk in self._held if _is_due(chunk, now)]
            for chunks in _groups(due):
                if self._closed.is_set():
                    return
                with self._deadlines:
                    held = [chunk for chunk in chunks if chunk in self._held]
                    if held and self._set_deadline(held, EXTENSION_S):
                        for chunk in held:
                            chunk.extended = now

    def _patiently(self, call: Callable[[], Any], given_up: threading.Event, waits: bool = False) -> Any:
        """What a call gives; while the broker is away, tries again. None: given up, or it never will.

        Args:
          call: of the broker.
          given_up: ends it.
          waits: it is an error if the call does not answer in time; a pull may.
        """
        tries = 0
        while not given_up.is_set():
            try:
                return call()
            except Exception as error:  # of gRPC, of the client, of its credentials
                kind = type(error).__name__
                if given_up.is_set() or (kind == "DeadlineExceeded" and not waits):
                    return None
                if kind == _DETACHED and waits:
                    # Acknowledged too late, where delivery is exactly once.
                    self._warn(error)
                    return None
                if kind in (*_FATAL, _DETACHED):
                    with self._condition:
                        self._error = f"{self.subscription}: {first_line(error)}"
                        self._condition.notify_all()
                    given_up.wait(1.0)
                    return None
                self._warn(error)
            given_up.wait(_PATIENCE_S[min(tries, len(_PATIENCE_S) - 1)])
            tries += 1
        return None

    def _give_back(self, chunks: list[Chunk]) -> None:
        """Lets messages be delivered again at once. Where that fails, they are when their deadline is over."""
        # Not while the keeper extends them.
        with self._deadlines:
            with self._condition:
                for chunk in chunks:
                    self._held.pop(chunk, None)
            for group in _groups(chunks):
                if not self._set_deadline(group, 0):
                    return

    def _set_deadline(self, chunks: list[Chunk], seconds: int) -> bool:
        request = {
            "subscription": self.subscription,
            "ack_ids": [id for chunk in chunks for id in chunk.ack_ids],
            "ack_deadline_seconds": seconds,
        }
        try:
            self._client.modify_ack_deadline(request=request, retry=None, timeout=_CALL_TIMEOUT_S)
        except Exception as error:  # see _patiently; tried again in a second, or not worth it
            self._warn(error)
            return False
        return True

    def _warn(self, error: Exception) -> None:
        if not self._closed.is_set() and self._warns.may_log():
            _LOG.warning("%s: Pub/Sub does not answer, trying again: %s", self.subscription, first_line(error))


def _is_due(chunk: Chunk, now: float) -> bool:
    """Whether it is time to extend a deadline."""
    if now - chunk.pulled > _LONGEST_LEASE_S:
        return False
    if chunk.extended is None:
        return now - chunk.pulled >= _FIRST_EXTENSION_AFTER_S
    return now - chunk.extended >= _EXTEND_EVERY_S
