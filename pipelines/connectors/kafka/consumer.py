"""Consumes messages of Kafka topics as one of a group; commits them when somebody says that they are done with.

The client takes one call at a time, so that none may wait for brokers: who polls also sends what is to be committed,
and hears later whether it was. Besides who takes messages there is a committer that polls while something is to be
committed, a keeper that stays in touch with the brokers while nobody takes, and of a stream that is behind the next
messages are read while those before are worked on. While brokers are away all of it waits; nothing is lost by that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.clock import now_us
from pipelines.connectors.kafka.broker_health import BrokerHealth
from pipelines.connectors.kafka.client import Cluster, Partition
from pipelines.connectors.kafka.offsets import Offsets, Part, topic_partitions
from pipelines.connectors.kafka.taken import Taken, handed_out, place_of, size_of

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

MOST_BYTES = 64 << 20
"""Of a micro-batch, about; the same is read ahead, and the same again fetched ahead."""
_CHUNK = 2_000
_POLL_S = 0.05
_KEEPER_PERIOD_S = 1.0
_PAUSES_AFTER_S = 5.0
_RETRY_S = 0.5
_ANSWER_PERIOD_S = 0.01
_LEAVES_WITHIN_S = 10.0


class TopicError(RuntimeError):
    """Raised when the topics cannot be read, and waiting does not help."""


@dataclass
class Session:
    """Reads topics as a member of a consumer group. Started once; taking ends with `stop`, all else with `close`.

    Attributes:
      cluster: the brokers.
      topics: what is read.
      group: its name.
    """

    cluster: Cluster
    topics: Sequence[str]
    group: str
    offsets: Offsets = field(default_factory=Offsets)
    _polling: threading.Lock = field(default_factory=threading.Lock)
    """Of who calls the client: the one who takes messages, the committer, the keeper, or the reader ahead."""
    _sent: dict[Partition, Part] = field(default_factory=dict)
    """To be committed, and not answered yet."""
    _sends_after: float = 0.0
    _gone: set[Partition] = field(default_factory=set)
    """Given away since the last poll."""
    _waiting: dict[Partition, int] = field(default_factory=dict)
    _left_over: list[Message] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _closed: threading.Event = field(default_factory=threading.Event)
    _is_behind: threading.Event = field(default_factory=threading.Event)
    _behind: int = 0
    """How many messages the last take could have."""
    _paused: bool = False
    _taken: float = 0.0

    def __post_init__(self) -> None:
        self._brokers = BrokerHealth(self.cluster, self.topics, self.group)

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
            "error_cb": self._brokers.hear,
            "on_commit": self._on_commit,
        }
        self._consumer = Consumer({**self.cluster.settings(), **settings})
        self._consumer.subscribe(
            list(self.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        self._taken = time.monotonic()
        self._brokers.heard_from()
        for target, name in ((self._commit, "committer"), (self._keep, "keeper"), (self._read_ahead, "reader ahead")):
            thread = threading.Thread(target=target, name=f"kafka {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    # Taken by the reader ---------------------------------------------------------------------------------------------

    def take(self, rows: int, linger_s: float, wait_s: float, stopping: Callable[[], bool]) -> Taken | None:
        """Hands out messages; from now on they wait for `acknowledge`.

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
            size = size_of(found) if len(found) < rows else 0
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
                size += size_of(found[before:])
            self._taken = time.monotonic()
            if stopping() or not found:
                return None
            if len(found) == rows:
                self._behind = rows
                self._is_behind.set()
            return self._hand_out(found, received_us)

    def _there(self, found: list[Message], rows: int) -> list[Message]:
        """`found`, and what else is there already, up to so many."""
        size = size_of(found)
        while len(found) < rows and size < MOST_BYTES:
            before, wanted = len(found), min(rows - len(found), _CHUNK)
            found = self._polled(found, wanted, 0.0)
            size += size_of(found[before:])
            if len(found) - before < wanted:
                break
        return found

    def _polled(self, found: list[Message], rows: int, timeout_s: float) -> list[Message]:
        """`found`, without what has been given away meanwhile, and what else there is."""
        from confluent_kafka import Message

        self._send_commits()
        got = self._consumer.consume(min(rows, _CHUNK), timeout_s)
        if self._gone:
            found = [each for each in found if place_of(each) not in self._gone]
            self._gone.clear()
        errors = [each for each in map(Message.error, got) if each is not None]
        for error in errors:
            self._brokers.hear(error)
        if self._brokers.final_error:
            raise TopicError(self._brokers.final_error)
        return found + ([each for each in got if each.error() is None] if errors else got)

    def _hand_out(self, found: list[Message], received_us: int) -> Taken:
        taken = handed_out(found, self.topics, received_us)
        self.offsets.hand_out(taken)
        self._waiting = self._watermarks()
        self._brokers.heard_from()
        return taken

    def backlog(self) -> int:
        """Returns how many messages had not been taken yet when there was a take last; no broker is called."""
        return sum(self._waiting.values())

    def _watermarks(self) -> dict[Partition, int]:
        """How many messages there are in each partition after those taken, by what the brokers last told."""
        from confluent_kafka import KafkaException, TopicPartition

        found = {}
        for place, offset in self.offsets.reached().items():
            # It may just have been given away.
            with suppress(KafkaException):
                _, high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
                found[place] = max(0, high - offset)
        return found

    @property
    def number(self) -> int:
        """Returns the number of the last take that gave messages; 0 before the first."""
        return self.offsets.number

    def acknowledge(self, number: int) -> None:
        """Marks what was handed out up to a take as done: it will be committed, soon."""
        self.offsets.acknowledge(number)

    def drain(self, timeout_s: float) -> int:
        """Waits until what `acknowledge` was told of has been committed; gives how many messages have not."""
        return self.offsets.wait_until_committed(timeout_s)

    def stop(self) -> None:
        """Takes no more, but stays in the group: what was handed out can still be committed."""
        self._stopped.set()

    def close(self) -> None:
        """Leaves the group: what was not committed is delivered again."""
        self.stop()
        self._brokers.close()
        with self.offsets.changed:
            self._closed.set()
            self.offsets.changed.notify_all()
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
            with self.offsets.changed:
                while not self.offsets.due() and not self._closed.is_set():
                    self.offsets.changed.wait(_KEEPER_PERIOD_S)
            if self._closed.wait(_ANSWER_PERIOD_S):
                return
            # Who takes messages meanwhile does it as well.
            self._poll_aside(pause=self._stopped.is_set())

    def _send_commits(self) -> None:
        """Sends what is due, unless something sent before has no answer yet, or was refused just now."""
        from confluent_kafka import KafkaException

        if self._sent or time.monotonic() < self._sends_after or not (due := self.offsets.due()):
            return
        self._sent = due
        try:
            self._consumer.commit(offsets=topic_partitions(due), asynchronous=True)
        except KafkaException as raised:
            self._on_commit(raised.args[0], topic_partitions(due))

    def _on_commit(self, error: KafkaError | None, partitions: Sequence[Any]) -> None:
        """The answer to what was sent; called by the client, while it polls."""
        answers = {(each.topic, each.partition): each.error or error for each in partitions}
        failed: dict[Partition, KafkaError] = {place: said for place, said in answers.items() if said is not None}
        sent, self._sent = self._sent, {}
        self.offsets.committed({place: part for place, part in sent.items() if place not in failed})
        for said in failed.values():
            self._sends_after = time.monotonic() + _RETRY_S
            self._brokers.warn("cannot commit", said)

    def _poll_aside(self, pause: bool) -> None:
        """Serves the client, unless somebody else does.

        Args:
          pause: whether to fetch nothing from now on, until somebody takes messages.
        """
        if self._polling.acquire(blocking=False):
            try:
                if pause:
                    self._pause()
                self._left_over = self._polled(self._left_over, 1, 0.0)
            except TopicError:
                pass  # said to who takes next
            finally:
                self._polling.release()

    def _keep(self) -> None:
        while not self._closed.wait(_KEEPER_PERIOD_S):
            idle = time.monotonic() - self._taken
            if self._stopped.is_set() or idle > _PAUSES_AFTER_S:
                # The brokers think that a member is dead which does not poll.
                self._poll_aside(pause=True)
            # The client does not always say when brokers are gone.
            self._brokers.look()

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

    # Called by the client, while it polls ----------------------------------------------------------------------------

    def _on_assign(self, consumer: Any, partitions: Sequence[Any]) -> None:
        self.offsets.gain((each.topic, each.partition) for each in partitions)
        consumer.incremental_assign(partitions)
        # The client remembers whether they were paused when they were given away.
        (consumer.pause if self._paused else consumer.resume)(partitions)

    def _on_revoke(self, consumer: Any, partitions: Sequence[Any]) -> None:
        from confluent_kafka import KafkaException

        places = {(each.topic, each.partition) for each in partitions}
        if due := self.offsets.due(places):
            # The last chance: it is waited for, and what fails is delivered again, to who has them next.
            try:
                answers = consumer.commit(offsets=topic_partitions(due), asynchronous=False)
                errors: list[KafkaError] = [each.error for each in answers if each.error is not None]
            except KafkaException as raised:
                errors = [raised.args[0]]
            for error in errors:
                self._brokers.warn("cannot commit", error)
        self._lose(places)

    def _on_lost(self, _: Any, partitions: Sequence[Any]) -> None:
        self._lose({(each.topic, each.partition) for each in partitions})

    def _lose(self, places: set[Partition]) -> None:
        self.offsets.lose(places)
        self._gone |= places
