"""Slows a sender down after refusals of a server that limits it, then lets it carefully go faster again.

As TCP does, with the curve of its CUBIC congestion control (RFC 9438). The first slowing down tells little: from what
was taken until then the rate doubles each second up to the second one. From then on it falls a little below what
the server last took, comes back to that within some seconds, stays a while around it, then grows ever faster. So the
sender finds the quota, stays near it, and notices when it is raised. A few refusals among many answers, as servers
give that share a quota among clients, do not slow it down.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

DECREASE = 0.95
"""Share of the accepted rate to go on with after slowing down."""

PLATEAU_S = 2.0
PLATEAU_REQUESTS = 25
"""So long, and so many requests, until the accepted rate is reached again."""

WINDOW_S = 1.0
ENOUGH = 30
"""The accepted rate is that of the last second, or of so many answers if there were fewer."""

TOLERATED = 0.15
FEW = 4
"""Refusals slow the sender down if they are more than this share of the last answers, and at least so many."""

COOL_DOWN_S = 1.0
"""So soon after a refusal that slowed the sender down, others are still answers to what was sent before."""

MIN_RATE = 0.1

FIRST_RATE = 10.0
"""At least, after the first slowing down: refusals come back sooner than predictions."""

LOOK_EVERY_S = 0.25
"""Who waits for a turn looks again so often, as the rate changes."""


class Throttle:
    """Paces the requests of all threads of a sender, first come, first served. Unlimited until it is slowed down.

    Args:
      clock: seconds, monotonic.
      sleep: waits that many seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep):
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._answers: deque[tuple[float, bool]] = deque()
        self._began: float | None = None
        self._ceiling: float | None = None
        self._slowed = 0.0
        self._deaf_until = 0.0
        self._learning = True
        self._tickets = 0
        self._turns = 0.0
        self._looked = 0.0

    @property
    def rate(self) -> float | None:
        """Returns how many requests a second may be sent now; None for no limit."""
        if self._ceiling is None:
            return None
        since = self._clock() - self._slowed
        if self._learning:
            return float(self._ceiling * DECREASE * 2 ** min(since, 60))
        plateau = max(PLATEAU_S, PLATEAU_REQUESTS / self._ceiling)
        along = (since - plateau) / plateau
        return max(MIN_RATE, float(self._ceiling * (1 + (1 - DECREASE) * along**3)))

    def wait(self) -> None:
        """Returns when the next request may be sent."""
        ticket = self.ticket()
        while pause := self.remaining(ticket):
            self._sleep(pause)

    def ticket(self) -> int:
        """Returns a place in the line."""
        with self._lock:
            if self._began is None:
                self._began = self._clock()
            self._tickets += 1
            return self._tickets

    def remaining(self, ticket: int) -> float:
        """Returns seconds until it is worth looking again; 0 if it is the ticket's turn."""
        with self._lock:
            now, rate = self._clock(), self.rate
            if rate is None:
                self._turns = self._tickets
                self._looked = now
                return 0.0
            # Turns that nobody took are lost, but for one.
            self._turns = min(self._turns + (now - self._looked) * rate, self._tickets)
            self._looked = now
            return min(LOOK_EVERY_S, max(0.001, (ticket - self._turns) / rate)) if ticket > self._turns else 0.0

    def accepted(self) -> None:
        """Notes that a request was answered, in whatever way, but not refused."""
        with self._lock:
            self._note(self._clock(), True)

    def refused(self) -> None:
        """Notes that a request was refused because it came too soon."""
        with self._lock:
            now = self._clock()
            if now < self._deaf_until:
                return
            self._note(now, False)
            refusals = sum(not taken for _, taken in self._answers)
            if refusals < FEW or refusals <= TOLERATED * len(self._answers):
                return
            first, measured = self._ceiling is None, self._measured(now)
            self._learning, self._ceiling = first, max(FIRST_RATE if first else MIN_RATE, measured)
            self._slowed = now
            self._deaf_until = now + COOL_DOWN_S
            self._answers = deque(answer for answer in self._answers if answer[1])

    def _note(self, now: float, taken: bool) -> None:
        self._answers.append((now, taken))
        while len(self._answers) > ENOUGH and self._answers[0][0] < now - WINDOW_S:
            self._answers.popleft()

    def _measured(self, now: float) -> float:
        """Accepted requests a second, over the last of them; while the rate doubles each second, the very last."""
        recent = [taken for at, taken in self._answers if at > now - WINDOW_S / 2]
        if self._ceiling is not None and self._learning and len(recent) >= ENOUGH / 3:
            return sum(recent) / (WINDOW_S / 2)
        began = now if self._began is None else self._began
        oldest = self._answers[0][0] if len(self._answers) >= ENOUGH else began
        return sum(taken for _, taken in self._answers) / max(now - oldest, WINDOW_S / 4)
