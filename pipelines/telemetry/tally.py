"""Counts what a run has done so far, for people to watch. The account at the end does not depend on it."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

from typing_extensions import Self

from model.terminal import escaped
from pipelines import process_state

_KINDS_OF_ERRORS = 100


@dataclass
class ErrorCount:
    """Describes dead letters of one stage with one error.

    Attributes:
      key: of the first of them.
      message: of the first of them.
      rows: how many there are.
    """

    key: str
    message: str
    rows: int = 0


@dataclass
class Tally:
    """Counts of this process; the in-process runner's workers are threads and share it.

    Attributes:
      dead_in_a_row: of a stream: rows of whole micro-batches that became dead letters while no row was written.
    """

    rows_read: int = 0
    rows_written: int = 0
    rows_dead_lettered: int = 0
    rows_repeated: int = 0
    bytes_read: int = 0
    dead_in_a_row: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: dict[tuple[str, str], ErrorCount] = {}
        self._written_before = self._dead_before = self._fruitful = 0

    @property
    def rows_done(self) -> int:
        """Returns rows of which it is known what has become of them."""
        return self.rows_written + self.rows_dead_lettered + self.rows_repeated

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

    def begin_micro_batch(self) -> None:
        """Looks whether micro-batches have written rows; a sink may keep those of the last until it gets this one."""
        with self._lock:
            if self.rows_written != self._written_before:
                self._written_before = self.rows_written
                self._fruitful = self.rows_dead_lettered
            self.dead_in_a_row = max(0, self._dead_before - self._fruitful)
            self._dead_before = self.rows_dead_lettered

    def note_error(self, stage: str, error: str, key: str, message: str) -> None:
        """Counts a dead letter by what is wrong with it; from any thread."""
        with self._lock:
            if (stage, error) in self._errors or len(self._errors) < _KINDS_OF_ERRORS:
                self._errors.setdefault((stage, error), ErrorCount(key, message)).rows += 1

    def errors(self) -> dict[tuple[str, str], ErrorCount]:
        """Counts the dead letters by stage and error."""
        with self._lock:
            return {kind: replace(count) for kind, count in self._errors.items()}

    def clear(self) -> None:
        """Starts from zero."""
        with self._lock:
            self.rows_read = self.rows_written = self.rows_dead_lettered = self.rows_repeated = self.bytes_read = 0
            self.dead_in_a_row = self._written_before = self._dead_before = self._fruitful = 0
            self._errors = {}


TALLY = Tally()
process_state.reset_by(TALLY.clear)


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
        self.begin()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    @abstractmethod
    def begin(self) -> None:
        """Notes that the run begins."""

    @abstractmethod
    def line(self) -> str:
        """Returns the present state in words."""

    @abstractmethod
    def look(self) -> None:
        """Looks at the run ten times a second, between the lines."""

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
    """Shows how a run with an end goes.

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
        read, done = TALLY.rows_read, TALLY.rows_done
        share = min(1.0, TALLY.bytes_read / self._total) if self._total else 1.0
        # What was read is not yet done: a batch may be tried again and again.
        share *= min(1.0, done / read) if read else 0.0
        left = f"{math.ceil(seconds / share * (1 - share))} s left" if share > 0.02 else "..."
        dead = f", {TALLY.rows_dead_lettered:,} dead-lettered" if TALLY.rows_dead_lettered else ""
        under_way = f", {read - done:,} under way" if read > done else ""
        return (
            f"{math.floor(100 * share):3}%  {read:,} rows read{under_way}{dead}, {done / seconds:,.0f} rows/s, {left}"
        )

    def look(self) -> None:
        """Does nothing: there is nothing to say between the lines."""
