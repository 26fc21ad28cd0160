"""Repeats of a key within a window of time, found and dropped.

A key counts as seen as soon as it is taken, by any step of this process: a bundle that fails ends the run, and with it
the process. So a message is never dropped for one that was lost.

The keys are held in memory. After a restart they are read from what was written, where that can be read: a row that is
in the output is a repeat when it is delivered again (see `SinkConnector.written_keys`).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from inference.log_throttle import LogThrottle
from pipelines import process_state
from pipelines.config.run import Window
from pipelines.connectors.run import StreamRun

Mask = npt.NDArray[np.bool_]

_LOG = logging.getLogger(__name__)
_SLICES = 10
_WARN_EVERY_S = 60.0


class Seen:
    """Remembers the keys of a window, from any thread.

    Args:
      window: how long, and how many.
      clock: seconds.
    """

    def __init__(self, window: Window, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._lock = threading.Lock()
        self._slices: deque[tuple[float, set[str]]] = deque()
        self._warns = LogThrottle(_WARN_EVERY_S, clock)

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
        with self._lock:
            self._forget()
            self._slice(self._clock() - age_s).update(keys)

    def fresh(self, keys: list[str]) -> Mask | None:
        """Takes keys; which of them come for the first time, None for all."""
        new = set(keys)
        with self._lock:
            self._forget()
            known: set[str] = set()
            for _, each in self._slices:
                if not new.isdisjoint(each):
                    known |= new & each
            self._slice(self._clock()).update(new - known)
        if not known and len(new) == len(keys):
            return None
        first = dict(zip(reversed(keys), itertools.count(len(keys) - 1, -1), strict=False))
        found = np.zeros(len(keys), bool)
        found[[at for key, at in first.items() if key not in known]] = True
        return found

    def _slice(self, at: float) -> set[str]:
        """Returns the keys that came about a time."""
        length = self._window.seconds / _SLICES
        begun = at // length * length
        for each, keys in reversed(self._slices):
            if each == begun:
                return keys
        made: set[str] = set()
        self._slices.append((begun, made))
        if len(self._slices) > 1 and self._slices[-2][0] > begun:
            self._slices = deque(sorted(self._slices, key=lambda each: each[0]))
        return made

    def _forget(self) -> None:
        now = self._clock()
        while self._slices and self._slices[0][0] + self._window.seconds * (1 + 1 / _SLICES) < now:
            self._slices.popleft()
        while len(self._slices) > 1 and len(self) > self._window.most:
            self._slices.popleft()
            if self._warns.may_log():
                _LOG.warning(
                    "dedupe: more than %s keys came within the window, so the oldest are forgotten early; "
                    "raise dedupe.max_keys, or shorten dedupe.window_s",
                    f"{self._window.most:,}",
                )


_all_seen: dict[Window, Seen] = {}
_lock = threading.Lock()


def seen(window: Window) -> Seen:
    """Returns the keys of a window that were seen in this process."""
    with _lock:
        return _all_seen.setdefault(window, Seen(window))


def forget() -> None:
    """Forgets all keys, before a new run in this process."""
    with _lock:
        _all_seen.clear()


process_state.reset_by(forget)


def remember(run: StreamRun) -> int:
    """Reads back the keys that a stream has written within its window, so that they count as seen; gives how many."""
    window = run.plan.config.repeats_within
    if window is None:
        return 0
    known = seen(window)
    for age_s, keys in run.written_keys(window.seconds):
        known.add(set(keys.drop_null().to_pylist()), age_s)
    return len(known)
