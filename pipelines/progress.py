"""What a run has done so far, for people to watch. The account at the end does not depend on it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any


@dataclass
class Tally:
    """Counts of this process; the in-process runner's workers are threads and share it."""

    rows_read: int = 0
    rows_written: int = 0
    rows_dead_lettered: int = 0
    rows_repeated: int = 0
    bytes_read: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(
        self, *, read: int = 0, written: int = 0, dead_lettered: int = 0, repeated: int = 0, nbytes: int = 0
    ) -> None:
        """Adds to the counts; from any thread."""
        with self._lock:
            self.rows_read += read
            self.rows_written += written
            self.rows_dead_lettered += dead_lettered
            self.rows_repeated += repeated
            self.bytes_read += nbytes

    def clear(self) -> None:
        """Starts from zero."""
        with self._lock:
            self.rows_read = self.rows_written = self.rows_dead_lettered = self.rows_repeated = self.bytes_read = 0


TALLY = Tally()


class LiveProgress:
    """Shows the tally while a run goes on: a moving line on a terminal, a plain line now and then in a pipe.

    Args:
      console: a rich console on standard error.
      total_bytes: bytes to read.
      every_s: seconds between plain lines.
    """

    def __init__(self, console: Any, total_bytes: int, every_s: float = 10.0) -> None:
        self._console = console
        self._total = total_bytes
        self._every = every_s if not console.is_terminal else 0.2
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> LiveProgress:
        TALLY.clear()
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def line(self) -> str:
        """The present state in words."""
        seconds = max(time.monotonic() - self._started, 1e-6)
        share = min(1.0, TALLY.bytes_read / self._total) if self._total else 1.0
        left = f"{seconds / share * (1 - share):.0f} s left" if share > 0.02 else "..."
        dead = f", {TALLY.rows_dead_lettered:,} dead-lettered" if TALLY.rows_dead_lettered else ""
        rate = TALLY.rows_read / seconds
        return f"{share:4.0%}  {TALLY.rows_read:,} rows read{dead}, {rate:,.0f} rows/s, {left}"

    def _watch(self) -> None:
        if not self._console.is_terminal:
            while not self._stop.wait(self._every):
                self._console.print(self.line(), highlight=False)
            return
        with self._console.status("starting") as status:
            while not self._stop.wait(self._every):
                status.update(self.line())
