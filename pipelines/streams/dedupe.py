"""Repeats of a key within a window of time, found and dropped.

A key counts as seen when the bundle that it was in is complete: what it wrote is durable then. Until that, only the
step that took it knows; if the bundle fails, the runner makes the step anew, and the message comes again.

The keys are held in memory. After a restart they are read from what was written, where that can be read: a row that is
in the output is a repeat when it is delivered again (see `Destination.written_keys`).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

_LOG = logging.getLogger(__name__)
_SLICES = 10
_WARN_EVERY_S = 60.0


@dataclass(frozen=True)
class Window:
    """What counts as a repeat.

    Attributes:
      seconds: how long a key is remembered.
      most: how many keys are; if more come in that time, the oldest are forgotten, and a warning says so.
    """

    seconds: float
    most: int


class Seen:
    """The keys of a window, from any thread.

    Args:
      window: how long, and how many.
      clock: seconds.
    """

    def __init__(self, window: Window, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._lock = threading.Lock()
        self._slices: deque[tuple[float, set[str]]] = deque()
        self._warned = -_WARN_EVERY_S

    def __len__(self) -> int:
        return sum(len(keys) for _, keys in self._slices)

    def add(self, keys: set[str], age_s: float = 0.0) -> None:
        """Remembers keys.

        Args:
          keys: which; they may be known already.
          age_s: how long ago they came.
        """
        if not keys or age_s > self._window.seconds:
            return
        length = self._window.seconds / _SLICES
        begun = (self._clock() - age_s) // length * length
        with self._lock:
            self._forget()
            for at, known in self._slices:
                if at == begun:
                    known |= keys
                    break
            else:
                self._slices.append((begun, set(keys)))
                if age_s:
                    self._slices = deque(sorted(self._slices, key=lambda each: each[0]))

    def overlap(self, keys: set[str]) -> set[str]:
        """Those of the keys that were seen."""
        with self._lock:
            self._forget()
            return set().union(*(keys & known for _, known in self._slices if not keys.isdisjoint(known)))

    def _forget(self) -> None:
        now = self._clock()
        while self._slices and self._slices[0][0] + self._window.seconds * (1 + 1 / _SLICES) < now:
            self._slices.popleft()
        while len(self._slices) > 1 and len(self) > self._window.most:
            self._slices.popleft()
            if now - self._warned >= _WARN_EVERY_S:
                self._warned = now
                _LOG.warning(
                    "dedupe: more than %s keys came within the window, so the oldest are forgotten early; "
                    "raise dedupe.max_keys, or shorten dedupe.window_s",
                    f"{self._window.most:,}",
                )


_all_seen: dict[Window, Seen] = {}
_lock = threading.Lock()


def seen(window: Window) -> Seen:
    """The keys of a window that were seen in this process."""
    with _lock:
        return _all_seen.setdefault(window, Seen(window))


def forget() -> None:
    """Forgets all keys, before a new run in this process."""
    with _lock:
        _all_seen.clear()


class Repeats:
    """Finds repeats for one step of a pipeline, in one thread.

    Args:
      window: what counts as a repeat.
    """

    def __init__(self, window: Window) -> None:
        self._seen = seen(window)
        self._taken: set[str] = set()

    def begin_bundle(self) -> None:
        """The bundle before is complete: its keys are seen from now on."""
        self._seen.add(self._taken)
        self._taken = set()

    def fresh(self, keys: list[str]) -> Mask | None:
        """Takes keys; which of them come for the first time, None for all."""
        new = set(keys)
        known = self._seen.overlap(new) | (new & self._taken)
        self._taken |= new
        if not known and len(new) == len(keys):
            return None
        first = dict(zip(reversed(keys), itertools.count(len(keys) - 1, -1), strict=False))
        found = np.zeros(len(keys), bool)
        found[[at for key, at in first.items() if key not in known]] = True
        return found
