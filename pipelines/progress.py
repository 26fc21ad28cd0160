"""What a run has done so far, for people to watch. The account at the end does not depend on it."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from typing_extensions import Self

from model.terminal import escaped


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


class Live(ABC):
    """Shows how a run goes, while it does: a moving line on a terminal, a plain line now and then in a pipe.

    Args:
      console: a rich console on standard error.
      moves_every_s: seconds between two states of the moving line.
      every_s: seconds between plain lines.
    """

    def __init__(self, console: Any, moves_every_s: float, every_s: float) -> None:
        self._console = console
        self._every = moves_every_s if console.is_terminal else every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Self:
        TALLY.clear()
        self.begin()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    @abstractmethod
    def begin(self) -> None:
        """The run begins."""

    @abstractmethod
    def line(self) -> str:
        """The present state in words."""

    @abstractmethod
    def look(self) -> None:
        """Called ten times a second, between the lines."""

    def _watch(self) -> None:
        if not self._console.is_terminal:
            while self._goes_on():
                self._console.print(self.line(), highlight=False, soft_wrap=True)
            return
        from rich.text import Text

        # rich would read markup in a string here, whatever the console is set to.
        with self._console.status(Text("starting")) as status:
            while self._goes_on():
                status.update(Text(escaped(self.line())))

    def _goes_on(self) -> bool:
        """Waits for the time of the next line; False at the end."""
        until = time.monotonic() + self._every
        while time.monotonic() < until:
            if self._stop.wait(0.1):
                return False
            self.look()
        return True


class LiveProgress(Live):
    """How a run with an end goes.

    Args:
      console: a rich console on standard error.
      total_bytes: bytes to read.
      every_s: seconds between plain lines.
    """

    def __init__(self, console: Any, total_bytes: int, every_s: float = 10.0) -> None:
        super().__init__(console, 0.2, every_s)
        self._total = total_bytes

    def begin(self) -> None:
        self._started = time.monotonic()

    def line(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-6)
        share = min(1.0, TALLY.bytes_read / self._total) if self._total else 1.0
        left = f"{seconds / share * (1 - share):.0f} s left" if share > 0.02 else "..."
        dead = f", {TALLY.rows_dead_lettered:,} dead-lettered" if TALLY.rows_dead_lettered else ""
        rate = TALLY.rows_read / seconds
        return f"{share:4.0%}  {TALLY.rows_read:,} rows read{dead}, {rate:,.0f} rows/s, {left}"

    def look(self) -> None:
        """There is nothing to say between the lines."""
