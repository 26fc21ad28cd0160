"""Messages of Kafka topics: consumed as one of a group, committed when somebody says that they are done with.

Threads of a session: a committer sends what is to be committed, a keeper stays in touch with the brokers while nobody
takes messages, and of a stream that is behind the next messages are read while those before are worked on. While
brokers are away all of it waits; nothing is lost by that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.saying import Seldom
from pipelines.streams.kafka_client import Cluster, Partition
from pipelines.streams.kafka_taken import Taken, handed_out
from pipelines.streams.schedule import now_us

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

MOST_BYTES = 64 << 20
"""Of a micro-batch, about; the same is read ahead, and the same again fetched ahead."""
_CHUNK = 2_000
_POLL_S = 0.05
_KEEPER_PERIOD_S = 1.0
_PAUSES_AFTER_S = 5.0
_WARN_EVERY_S = 10.0
_RETRY_S = 0.5
_PROBE_S = 1.0
_PROBES_EVERY_S = 3.0
_LEAVES_WITHIN_S = 10.0

_LOG = logging.getLogger(__name__)


class TopicError(RuntimeError):
    """The topics cannot be read, and waiting does not help."""


@dataclass(frozen=True)
class _Part:
    """What a take had of a partition.

    Attributes:
      tenure: during which it was taken; another is another member's or begins anew.
      next: the number of the message after the last.
      messages: how many.
    """

    tenure: int
    next: int
    messages: int


@dataclass
class Session:
    """A member of a consumer group. Started once; taking ends with `stop`, all else with `close`.

    Attributes:
      cluster: the brokers.
      topics: what is read.
      group: its name.
    """

    cluster: Cluster
    topics: Sequence[str]
    group: str
    _condition: threading.Condition = field(default_factory=threading.Condition)
    _polling: threading.Lock = field(default_factory=threading.Lock)
    """Of who consumes: the one who takes messages, the keeper, or the reader ahead."""
    _committing: threading.RLock = field(default_factory=threading.RLock)
    """A partition is not given away while something of it is being committed."""
    _tenures: dict[Partition, int] = field(default_factory=dict)
    """The partitions that are ours."""
    _next: dict[Partition, int] = field(default_factory=dict)
    _handed: dict[int, dict[Partition, _Part]] = field(default_factory=dict)
    _due: dict[Partition, _Part] = field(default_factory=dict)
    """To be committed."""
    _gone: set[Partition] = field(default_factory=set)
    """Given away since the last poll."""
    _left_over: list[Message] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _closed: threading.Event = field(default_factory=threading.Event)
    _is_behind: threading.Event = field(default_factory=threading.Event)
    _behind: int = 0
    """How many messages the last take could have."""
    _paused: bool = False
    _away: bool = False
    _number: int = 0
    _tenure: int = 0
    _taken: float = 0.0
    _came: float = 0.0
    """When the last messages were handed out."""
    _looked: float = 0.0
    _error: str = ""
    _warns: Seldom = field(default_factory=lambda: Seldom(_WARN_EVERY_S))

    def start(self) -> None:
        """Joins the group."""
        from confluent_kafka import Consumer

        settings = {
            "group.id": self.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Where a group begins is set before; partitions that are made later are read from their beginning.
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "cooperative-sticky",
            "queued.max.messages.kbytes": MOST_BYTES >> 10,
            "fetch.max.bytes": MOST_BYTES // 2,
            "max.partition.fetch.bytes": 4 << 20,
            # How long a full queue keeps from fetching. The client's own second is longer than the queue lasts.
            "fetch.queue.backoff.ms": 10,
            # A member that was killed holds its partitions for so long.
            "session.timeout.ms": 10_000,
            "socket.timeout.ms": 15_000,
            "error_cb": self._hear,
        }
        self._consumer = Consumer({**self.cluster.settings(), **settings})
        self._consumer.subscribe(
            list(self.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        self._taken = self._came = time.monotonic()
        for target, name in ((self._commit, "committer"), (self._keep, "keeper"), (self._read_ahead, "reader ahead")):
            thread = threading.Thread(target=target, name=f"kafka {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    # Taken by the reader ---------------------------------------------------------------------------------------------

    def take(self, rows: int, linger_s: float, wait_s: float, stopping: Callable[[], bool]) -> Taken | None:
        """Messages, handed out: from now on they wait for `acknowledge`.

        Args:
          rows: at most so many.
          linger_s: how long to wait for the first.
          wait_s: how long, after the first came, to wait for more.
          stopping: whether waiting should end, with nothing.

        Raises:
          TopicError: the topics must not be read, or not as this group.
        """
        with self._polling:
            self._resume()
            # What is there already may have come right after the last take.
            there = self._there(self._left_over, rows)
            found, self._left_over = there[:rows], there[rows:]
            there_is_more = len(found) >= _CHUNK
            received_us = now_us()
            until = self._taken + wait_s if found else time.monotonic() + linger_s
            size = _size(found) if len(found) < rows else 0
            while len(found) < rows and size < MOST_BYTES and not stopping():
                left = until - time.monotonic()
                if left <= 0 and not there_is_more:
                    break
                before = len(found)
                # The first comes alone; then as many as there is room for.
                wanted = min(rows - before, max(1, (MOST_BYTES - size) * before // max(size, 1)), _CHUNK)
                found = self._polled(found, wanted, max(0.0, min(left, _POLL_S)))
                there_is_more = len(found) - before >= wanted
                if not before and found:
                    until, received_us = time.monotonic() + wait_s, now_us()
                size += _size(found[before:])
            self._taken = time.monotonic()
            if stopping() or not found:
                return None
            if len(found) == rows:
                self._behind = rows
                self._is_behind.set()
            return self._hand_out(found, received_us)

    def _there(self, found: list[Message], rows: int) -> list[Message]:
        """`found`, and what else is there already, up to so many."""
        size = _size(found)
        while len(found) < rows and size < MOST_BYTES:
            before, wanted = len(found), min(rows - len(found), _CHUNK)
            found = self._polled(found, wanted, 0.0)
            size += _size(found[before:])
            if len(found) - before < wanted:
                break
        return found

    def _polled(self, found: list[Message], rows: int, timeout_s: float) -> list[Message]:
        """`found`, without what has been given away meanwhile, and what else there is."""
        from confluent_kafka import Message

        got = self._consumer.consume(min(rows, _CHUNK), timeout_s)
        if self._gone:
            with self._condition:
                found = [each for each in found if _place(each) not in self._gone]
                self._gone.clear()
        errors = [each for each in map(Message.error, got) if each is not None]
        for error in errors:
            self._hear(error)
        if self._error:
            raise TopicError(self._error)
        return found + ([each for each in got if each.error() is None] if errors else got)

    def _hand_out(self, found: list[Message], received_us: int) -> Taken:
        taken = handed_out(found, self.topics, received_us)
        counts = np.bincount(taken.places, minlength=len(taken.partitions)).tolist()
        last = np.zeros(len(counts), np.int64)
        np.maximum.at(last, taken.places, taken.offsets)
        with self._condition:
            parts = {
                place: _Part(self._tenures.get(place, 0), offset + 1, count)
                for place, offset, count in zip(taken.partitions, last.tolist(), counts, strict=True)
            }
            self._number += 1
            self._handed[self._number] = parts
            self._next |= {place: part.next for place, part in parts.items()}
            self._away = False
            self._came = time.monotonic()
        return taken

    @property
    def number(self) -> int:
        """Of the last take that gave messages; 0 before."""
        return self._number

    def backlog(self) -> int:
        """How many messages have not been taken yet, by what the brokers last told; asks nobody."""
        from confluent_kafka import KafkaException, TopicPartition

        with self._condition:
            ours = {place: self._next[place] for place in self._tenures if place in self._next}
        count = 0
        for (topic, number), offset in ours.items():
            try:
                _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, number), cached=True)
            except (KafkaException, RuntimeError):
                # It has just been given away, or the consumer closed.
                continue
            count += max(0, high - offset)
        return count

    def acknowledge(self, number: int) -> None:
        """What was handed out up to a take is done with: it will be committed, soon."""
        with self._condition:
            for each in [each for each in self._handed if each <= number]:
                for place, part in self._handed.pop(each).items():
                    if self._tenures.get(place) == part.tenure:
                        before = self._due.get(place)
                        count = part.messages + (before.messages if before else 0)
                        self._due[place] = _Part(part.tenure, part.next, count)
            self._condition.notify_all()

    def drain(self, timeout_s: float) -> int:
        """Waits until what `acknowledge` was told of has been committed; gives how many messages have not."""
        until = time.monotonic() + timeout_s
        with self._condition:
            while self._due and (left := until - time.monotonic()) > 0:
                self._condition.wait(left)
            return sum(part.messages for part in self._due.values())

    def stop(self) -> None:
        """Takes no more, but stays in the group: what was handed out can still be committed."""
        self._stopped.set()

    def close(self) -> None:
        """Leaves the group: what was not committed is delivered again."""
        self.stop()
        with self._condition:
            self._closed.set()
            self._condition.notify_all()
        self._is_behind.set()
        # Brokers that are away are not waited for.
        leaving = threading.Thread(target=self._leave, name="kafka leaving", daemon=True)
        leaving.start()
        leaving.join(_LEAVES_WITHIN_S)

    def _leave(self) -> None:
        for thread in self._threads:
            thread.join()
        with self._polling:
            self._consumer.close()

    # Threads ---------------------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        while True:
            with self._condition:
                while not self._due and not self._closed.is_set():
                    self._condition.wait(_KEEPER_PERIOD_S)
                if self._closed.is_set():
                    return
            if not self._commit_due():
                self._closed.wait(_RETRY_S)

    def _commit_due(self, only: Sequence[Partition] | None = None) -> bool:
        """Commits what is due, of all partitions or some; False if a part of it could not be."""
        from confluent_kafka import KafkaException, TopicPartition

        with self._committing:
            with self._condition:
                due = {place: part for place, part in self._due.items() if only is None or place in only}
            if not due:
                return True
            offsets = [TopicPartition(topic, number, part.next) for (topic, number), part in due.items()]
            failed: dict[Partition, Any] = {}
            try:
                for each in self._consumer.commit(offsets=offsets, asynchronous=False):
                    if each.error is not None:
                        failed[each.topic, each.partition] = each.error
            except KafkaException as raised:
                failed = dict.fromkeys(due, raised.args[0])
            with self._condition:
                for place, part in due.items():
                    if place not in failed and (now := self._due.pop(place, None)) is not None and now != part:
                        self._due[place] = _Part(now.tenure, now.next, now.messages - part.messages)
                self._condition.notify_all()
        for error in failed.values():
            self._warn(f"cannot commit, trying again: {error.str()}")
        return not failed

    def _keep(self) -> None:
        while not self._closed.wait(_KEEPER_PERIOD_S):
            idle = time.monotonic() - self._taken
            if (self._stopped.is_set() or idle > _PAUSES_AFTER_S) and self._polling.acquire(blocking=False):
                # The brokers think that a member is dead which does not poll.
                try:
                    self._pause()
                    self._left_over = self._polled(self._left_over, 1, 0.0)
                except TopicError:
                    pass  # said to who takes next
                finally:
                    self._polling.release()
            # The client does not always say when brokers are gone.
            if self._away or time.monotonic() - max(self._came, self._looked) > _PROBES_EVERY_S:
                self._look_for_brokers()

    def _read_ahead(self) -> None:
        """While what was taken is worked on: the client makes an object of each message, and that takes its time."""
        while self._is_behind.wait() and not self._closed.is_set():
            self._is_behind.clear()
            with self._polling, suppress(TopicError):
                self._left_over = self._there(self._left_over, self._behind)

    def _pause(self) -> None:
        """What is fetched ahead is dropped, and fetched again by `_resume`."""
        self._paused = True
        self._consumer.pause(self._consumer.assignment())

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._consumer.resume(self._consumer.assignment())

    def _look_for_brokers(self) -> None:
        from confluent_kafka import KafkaException

        self._looked = time.monotonic()
        try:
            self._consumer.list_topics(self.topics[0], timeout=_PROBE_S)
        except KafkaException as error:
            self._warn(f"no broker answers, trying again: {error.args[0].str()}")
        else:
            self._away = False

    # Called by the client, while it polls ----------------------------------------------------------------------------

    def _on_assign(self, consumer: Any, partitions: Sequence[Any]) -> None:
        with self._condition:
            self._tenure += 1
            for each in partitions:
                self._tenures[each.topic, each.partition] = self._tenure
        consumer.incremental_assign(partitions)
        # The client remembers whether they were paused when they were given away.
        (consumer.pause if self._paused else consumer.resume)(partitions)

    def _on_revoke(self, _: Any, partitions: Sequence[Any]) -> None:
        places = [(each.topic, each.partition) for each in partitions]
        with self._committing:
            self._commit_due(places)
            self._forget(places)

    def _on_lost(self, _: Any, partitions: Sequence[Any]) -> None:
        with self._committing:
            self._forget([(each.topic, each.partition) for each in partitions])

    def _forget(self, places: Sequence[Partition]) -> None:
        with self._condition:
            for place in places:
                for kept in (self._tenures, self._next, self._due):
                    kept.pop(place, None)
            self._gone.update(places)
            self._condition.notify_all()

    def _hear(self, error: KafkaError) -> None:
        """An error that came by itself."""
        from confluent_kafka import KafkaError as Error

        final = (
            Error.TOPIC_AUTHORIZATION_FAILED,
            Error.GROUP_AUTHORIZATION_FAILED,
            Error.INCONSISTENT_GROUP_PROTOCOL,
            Error._FATAL,
        )
        if error.code() in final:
            self._error = f"{', '.join(self.topics)}, group {self.group}: {error.str()}"
        elif error.code() in (Error._ALL_BROKERS_DOWN, Error._AUTHENTICATION, Error._SSL):
            self._away = True

    def _warn(self, what: str) -> None:
        if not self._closed.is_set() and self._warns.may_say():
            _LOG.warning("Kafka at %s: %s", self.cluster.servers, what)


def _place(message: Message) -> Partition:
    return message.topic(), message.partition()  # type: ignore[return-value]


def _size(messages: Sequence[Message]) -> int:
    """Bytes of payloads, at least one a message."""
    return sum(map(len, messages))
