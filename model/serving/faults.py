"""Misbehaves on purpose, so that clients can rehearse it: failures by chance, and a quota."""

import random
import time
from collections.abc import Callable, Sequence


class Faults:
    """Draws which requests fail, and how.

    Args:
      rate: the share of requests that fail.
      kinds: the ways to fail, equally likely.
      seed: the same seed gives the same sequence.
    """

    def __init__(self, rate: float, kinds: Sequence[str], seed: int) -> None:
        self._rate = rate
        self._kinds = tuple(kinds)
        self._random = random.Random(seed)

    def draw(self) -> str | None:
        """Returns how the next request fails; None if it does not."""
        if self._rate <= 0 or self._random.random() >= self._rate:
            return None
        return self._random.choice(self._kinds)


class Quota:
    """Limits requests by a token bucket that holds what a tenth of a second gives, and one token at least.

    Args:
      rate: tokens a second; None for no limit.
      clock: seconds.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._size = max(1.0, (rate or 0.0) / 10)
        self._tokens = self._size
        self._filled = clock()

    def take(self) -> bool:
        """Takes a token, if there is one."""
        if self._rate is None:
            return True
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
