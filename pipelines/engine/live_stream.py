"""Shows how a stream goes, while it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pipelines.connectors.streaming.stop import STOPPING
from pipelines.dead_letters.limit import most_frequent
from pipelines.telemetry.latency import LATENCIES, STAGES, percentiles
from pipelines.telemetry.tally import TALLY, Live


class LiveStream(Live):
    """Shows the tally and, of what was done since the line before, the rate and the latencies of all stages.

    Args:
      console: a rich console on standard error.
      backlog: how many messages wait to be read, if anybody knows.
      every_s: seconds between plain lines.
      most_dead: rows that may become dead letters, none being written, before the stream is ended in order; None: any
        number.

    Attributes:
      ended_because: why the stream was ended; empty if it was not, or not for its dead letters.
    """

    def __init__(
        self,
        console: Any,
        backlog: Callable[[], int | None],
        every_s: float = 10.0,
        most_dead: int | None = None,
    ) -> None:
        super().__init__(console, 0.5, every_s)
        self._backlog = backlog
        self._most_dead = most_dead
        self.ended_because = ""
        self._said = False

    def begin(self) -> None:
        self._last = (time.monotonic(), 0)
        self._counts = LATENCIES.counts()

    def line(self) -> str:
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
            f"{stage} {'/'.join(f'{values[name]:,.1f}' for name in ('p50', 'p95', 'p99'))}"
            for stage, values in found.items()
            if values
        )

    def look(self) -> None:
        if self._most_dead is not None and TALLY.dead_in_a_row >= self._most_dead and not STOPPING.is_set():
            self.ended_because = (
                f"the stream was ended, because all of its last {TALLY.dead_in_a_row:,} rows became dead letters; most "
                f"frequent: {most_frequent(TALLY.errors())}"
            )
            STOPPING.set()
        if STOPPING.is_set() and not self._said:
            self._said = True
            self._console.print("ending: finishing what was taken; once more stops at once", highlight=False)
