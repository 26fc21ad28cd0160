"""How fast a sender may ask a server that limits it: slower after a refusal, then carefully faster again.

The rate follows the curve of the CUBIC congestion control of TCP (RFC 9438): a tenth less than what the server last
took, back to that within some seconds, a while around it, then ever faster. So the sender finds the quota, stays
near it, and notices when it is raised.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

DECREASE = 0.9
"""Share of the accepted rate to go on with after a refusal."""

PLATEAU_S = 6.0
"""Seconds until the accepted rate is reached again."""

WINDOW_S = 1.0
"""Over which accepted requests are counted."""

COOL_DOWN_S = 1.0
"""Refusals so soon after one that slowed the sender down are still answers to what was sent before."""

MIN_RATE = 0.1


class Throttle:
    """Paces the requests of all threads of a sender. Unlimited until the first refusal.

    Args:
      clock: seconds, monotonic.
      sleep: waits that many seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep):
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._accepted: deque[float] = deque()
        self._began: float | None = None
        self._ceiling: float | None = None
        self._slowed = 0.0
        self._next = 0.0
        self.waited = 0.0

    @property
    def rate(self) -> float | None:
        """Requests a second that may be sent now; None for no limit."""
        if self._ceiling is None:
            return None
        along = (self._clock() - self._slowed - PLATEAU_S) / PLATEAU_S
        return max(MIN_RATE, float(self._ceiling * (1 + (1 - DECREASE) * along**3)))

    def wait(self) -> None:
        """Returns when the next request may be sent."""
        with self._lock:
            now = self._clock()
            if self._began is None:
                self._began = now
            rate = self.rate
            if rate is None:
                return
            at = max(now, self._next)
            self._next = at + 1 / rate
            self.waited += at - now
        if at > now:
            self._sleep(at - now)

    def accepted(self) -> None:
        """A request was answered, in whatever way, but not refused."""
        with self._lock:
            now = self._clock()
            self._accepted.append(now)
            self._forget(now)

    def refused(self) -> None:
        """A request was refused for coming too soon."""
        with self._lock:
            now = self._clock()
            if self._ceiling is not None and now - self._slowed < COOL_DOWN_S:
                return
            self._forget(now)
            seconds = min(WINDOW_S, max(now - (self._began or now), WINDOW_S / 4))
            self._ceiling = max(MIN_RATE, len(self._accepted) / seconds)
            self._slowed = now
            self._next = now

    def _forget(self, now: float) -> None:
        while self._accepted and self._accepted[0] < now - WINDOW_S:
            self._accepted.popleft()
