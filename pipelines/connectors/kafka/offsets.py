"""Counts how far a group's member is in each partition: taken, acknowledged, sent to be committed, committed.

Asks nobody and sends nothing; safe for threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.connectors.kafka.client import Partition
from pipelines.connectors.kafka.taken import Taken


@dataclass(frozen=True)
class Part:
    """Describes the messages of one partition that were taken at once.

    Attributes:
      tenure: during which it was taken; another is another member's or begins anew.
      next: the number of the message after the last.
      messages: how many.
    """

    tenure: int
    next: int
    messages: int


@dataclass
class Offsets:
    """Keeps the offsets of the partitions that this consumer has, while it has them."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    """Notified when there is something to commit, or less."""
    _tenures: dict[Partition, int] = field(default_factory=dict)
    _next: dict[Partition, int] = field(default_factory=dict)
    _handed: dict[int, dict[Partition, Part]] = field(default_factory=dict)
    _due: dict[Partition, Part] = field(default_factory=dict)
    _number: int = 0
    _tenure: int = 0

    def gain(self, places: Iterable[Partition]) -> None:
        """Partitions are ours from now on."""
        with self.changed:
            self._tenure += 1
            for place in places:
                self._tenures[place] = self._tenure

    def lose(self, places: Iterable[Partition]) -> None:
        """Partitions are another's: nothing of them is committed any more."""
        with self.changed:
            for place in places:
                for kept in (self._tenures, self._next, self._due):
                    kept.pop(place, None)
            self.changed.notify_all()

    def hand_out(self, taken: Taken) -> None:
        """Notes messages that were taken and wait for `acknowledge`."""
        counts = np.bincount(taken.places, minlength=len(taken.partitions)).tolist()
        last = np.zeros(len(counts), np.int64)
        np.maximum.at(last, taken.places, taken.offsets)
        with self.changed:
            parts = {
                place: Part(self._tenures.get(place, 0), offset + 1, count)
                for place, offset, count in zip(taken.partitions, last.tolist(), counts, strict=True)
            }
            self._number += 1
            self._handed[self._number] = parts
            self._next |= {place: part.next for place, part in parts.items()}

    @property
    def number(self) -> int:
        """Returns the number of the last messages that were taken; 0 before the first."""
        return self._number

    @property
    def partitions(self) -> set[Partition]:
        """Returns the partitions that this consumer has."""
        with self.changed:
            return set(self._tenures)

    def reached(self) -> dict[Partition, int]:
        """Returns the number of the next message of each of our partitions that anything was taken of."""
        with self.changed:
            return {place: self._next[place] for place in self._tenures if place in self._next}

    def acknowledge(self, number: int) -> None:
        """Marks what was handed out up to a number as ready to be committed."""
        with self.changed:
            for each in [each for each in self._handed if each <= number]:
                for place, part in self._handed.pop(each).items():
                    if self._tenures.get(place) == part.tenure:
                        before = self._due.get(place)
                        count = part.messages + (before.messages if before else 0)
                        self._due[place] = Part(part.tenure, part.next, count)
            self.changed.notify_all()

    def due(self, only: Collection[Partition] | None = None) -> dict[Partition, Part]:
        """Returns what is to be committed, of all partitions or some."""
        with self.changed:
            return {place: part for place, part in self._due.items() if only is None or place in only}

    def committed(self, parts: Mapping[Partition, Part]) -> None:
        """Notes that what `due` gave has been committed; what became due since then has not."""
        with self.changed:
            for place, part in parts.items():
                now = self._due.get(place)
                if now is None or now.tenure != part.tenure or now.next < part.next:
                    continue
                if now.next == part.next:
                    del self._due[place]
                else:
                    self._due[place] = Part(now.tenure, now.next, now.messages - part.messages)
            self.changed.notify_all()

    def wait_until_committed(self, timeout_s: float) -> int:
        """Waits until nothing is due; gives how many messages are, in the end."""
        until = time.monotonic() + timeout_s
        with self.changed:
            while self._due and (left := until - time.monotonic()) > 0:
                self.changed.wait(left)
            return sum(part.messages for part in self._due.values())


def topic_partitions(parts: Mapping[Partition, Part]) -> list[Any]:
    """Returns positions to commit, of the class that the client takes."""
    from confluent_kafka import TopicPartition

    return [TopicPartition(topic, number, part.next) for (topic, number), part in parts.items()]
