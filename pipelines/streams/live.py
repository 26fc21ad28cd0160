"""How a stream goes, while it does: a moving line on a terminal, a plain line now and then in a pipe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from pipelines.progress import TALLY
from pipelines.streams.latency import LATENCIES, STAGES, percentiles
from pipelines.streams.stop import STOPPING


class LiveStream:
    """Shows the tally and, of what was done since the line before, the rate and the latencies of all stages.

    Args:
      console: a rich console on standard error.
      backlog: how many messages wait to be read, if anybody knows.
      every_s: seconds between plain lines.
    """

    def __init__(self, console: Any, backlog: Callable[[], int | None], every_s: float = 10.0) -> None:
        self._console = console
        self._backlog = backlog
        self._every = every_s if not console.is_terminal else 0.5
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._said = False

    def __enter__(self) -> LiveStream:
        TALLY.clear()
        self._last = (time.monotonic(), 0)
        self._counts = LATENCIES.counts()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def line(self) -> str:
        """The present state in words."""
        now, rows = time.monotonic(), TALLY.rows_read
        rate = (rows - self._last[1]) / max(now - self._last[0], 1e-6)
        self._last = now, rows
        parts = [f"{rows:,} messages read"]
        if TALLY.rows_dead_lettered:
            parts.append(f"{TALLY.rows_dead_lettered:,} dead-lettered")
        if TALLY.rows_repeated:
            parts.append(f"{TALLY.rows_repeated:,} repeats dropped")
        parts.append(f"{rate:,.0f} messages/s")
        waiting = self._backlog()
        if waiting is not None:
            parts.append(f"backlog {waiting:,}")
        late = self._latencies()
        return ", ".join(parts) + (f"; ms at p50/p95/p99: {late}" if late else "")

    def _latencies(self) -> str:
        before, self._counts = self._counts, LATENCIES.counts()
        found = {stage: percentiles(self._counts[stage] - before[stage]) for stage in STAGES}
        return ", ".join(
            f"{stage} {'/'.join(f'{value:,.1f}' for value in values.values())}"
            for stage, values in found.items()
            if values
        )

    def _watch(self) -> None:
        if not self._console.is_terminal:
            while self._goes_on():
                self._console.print(self.line(), highlight=False, soft_wrap=True)
            return
        with self._console.status("starting") as status:
            while self._goes_on():
                status.update(self.line())

    def _goes_on(self) -> bool:
        """Waits for the time of the next line; False at the end."""
        until = time.monotonic() + self._every
        while time.monotonic() < until:
            if self._stop.wait(0.1):
                return False
            if STOPPING.is_set() and not self._said:
                self._said = True
                self._console.print("ending: finishing what was taken; once more stops at once", highlight=False)
        return True
