"""Computes when messages of a constant rate are due, to the microsecond, and how many are due by now."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
_Int = TypeVar("_Int", int, Numbers)


@dataclass(frozen=True)
class Schedule:
    """Says when every `parts`th message of a stream with `rate` messages a second is due.

    Message `number` of the stream is due at `start_us + number / rate`. This schedule has the numbers `part`,
    `part + parts`, ..., and calls them 0, 1, ...: their indices.

    Attributes:
      start_us: when the stream begins, microseconds since the epoch.
      rate: messages a second, above 0.
      part: first of the numbers.
      parts: distance between two.
    """

    start_us: int
    rate: float
    part: int = 0
    parts: int = 1

    def number(self, index: _Int) -> _Int:
        """Returns the stream's number of the message with an index."""
        return self.part + index * self.parts

    def due_us(self, index: int) -> int:
        """Returns when the message with an index is due."""
        return self.start_us + math.floor(self.number(index) * 1e6 / self.rate)

    def due_times(self, first: int, count: int) -> Numbers:
        """Returns when the messages with the indices from `first` are due, int64 [count]."""
        numbers = self.number(np.arange(first, first + count))
        due: Numbers = self.start_us + np.floor(numbers * 1e6 / self.rate).astype(np.int64)
        return due

    def due_by(self, us: int) -> int:
        """Returns how many messages are due at a time, those due just then included."""
        found = max(0, int(((us - self.start_us) * self.rate / 1e6 - self.part) / self.parts))
        # Division rounds; the definition is due_us.
        while self.due_us(found) <= us:
            found += 1
        while found and self.due_us(found - 1) > us:
            found -= 1
        return found


def messages_within(rate: float, seconds: float) -> int:
    """Returns how many messages are due in the first seconds of a stream, its beginning included, its end not."""
    return math.ceil(seconds * rate)
