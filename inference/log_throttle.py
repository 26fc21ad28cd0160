"""Warnings about what goes on for a while: said on one line, and not over and over."""

from __future__ import annotations

import time
from collections.abc import Callable


class LogThrottle:
    """Tells whether something may be said again.

    Args:
      every_s: how long to be silent after it was said.
      clock: seconds.
    """

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._said: float | None = None

    def may_log(self) -> bool:
        """Tells whether it was not said lately; if so, it is taken for said now."""
        now = self._clock()
        if self._said is not None and now - self._said < self._every_s:
            return False
        self._said = now
        return True


def first_line(error: BaseException | None) -> str:
    """Returns what an error says, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
