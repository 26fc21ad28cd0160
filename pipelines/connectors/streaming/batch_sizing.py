"""Decides how large a micro-batch may get and how long it may wait: by the config, or by a latency budget.

With a budget, the time that micro-batches take behind the source is fitted to a + b x rows, recent ones counting most.
A message waits for its batch, then for the batch to be done. The batch waits as long as both fit into the budget, which
makes batches as large, and calls of the model as few, as they can be; and no batch has more rows than are done within
half of it, so that a backlog is worked off in batches that do not break the budget for what comes after them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from inference.marks import rows_of
from pipelines import process_state
from pipelines.clock import now_us
from pipelines.telemetry.latency import LATENCIES

_SHARE = 0.7
"""Of the budget is planned with: the slowest of a hundred messages take longer than the fit says."""
_DECAY = 0.98
_FIRST_ROWS = 1_000
_FIRST_SHARE = 0.2


@dataclass(frozen=True)
class Choice:
    """Describes the batch size and the wait that a reader goes by.

    Attributes:
      max_rows: of a micro-batch.
      max_wait_ms: how long it waits, after its first message came, to fill.
    """

    max_rows: int
    max_wait_ms: float


class Pace:
    """Chooses how large micro-batches may get and how long they wait; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begin()

    def begin(self, budget_ms: float | None = None, most_rows: int = 1) -> None:
        """Starts anew.

        Args:
          budget_ms: from the event to its row being written; None: readers go by the config.
          most_rows: of a micro-batch, whatever the budget allows.
        """
        with self._lock:
            self._budget_ms = budget_ms
            self._most_rows = most_rows
            self._sums: tuple[float, ...] = (0.0,) * 5
            self._choice = None
            if budget_ms is not None:
                self._choice = Choice(min(most_rows, _FIRST_ROWS), _FIRST_SHARE * budget_ms)

    @property
    def choice(self) -> Choice | None:
        """Returns what was chosen for the budget; None if there is none."""
        return self._choice

    def or_else(self, max_rows: int, max_wait_ms: float) -> Choice:
        """Returns what a reader goes by: the choice, or what its config says."""
        return self._choice or Choice(max_rows, max_wait_ms)

    def observe(self, rows: int, milliseconds: float, rows_per_second: float) -> None:
        """Learns from a micro-batch that is done.

        Args:
          rows: that it had.
          milliseconds: from its being complete to its being written.
          rows_per_second: at which they came.
        """
        with self._lock:
            if self._budget_ms is None:
                return
            new = (1.0, rows, rows * rows, milliseconds, rows * milliseconds)
            self._sums = tuple(_DECAY * total + each for total, each in zip(self._sums, new, strict=True))
            self._choice = self._chosen(rows_per_second / 1000)

    def _chosen(self, rows_per_ms: float) -> Choice:
        fixed, each = self._fit()
        planned = _SHARE * float(self._budget_ms or 0.0)
        rows = int((planned / 2 - fixed) / each) if each else self._most_rows
        left = planned - fixed
        # Of any rate, at least one row comes.
        wait = min(left / (1 + each * rows_per_ms), left - each)
        return Choice(max(1, min(rows, self._most_rows)), max(0.0, wait))

    def _fit(self) -> tuple[float, float]:
        """Milliseconds of any batch, and of each row in it: least squares, neither below zero."""
        count, rows, squares, times, products = self._sums
        spread = count * squares - rows * rows
        if spread <= 1e-6 * count * squares:
            # All batches were alike: what they took is taken for their rows', until a larger one tells.
            return 0.0, times / rows
        each = max(0.0, (count * products - rows * times) / spread)
        fixed = (times - each * rows) / count
        return (fixed, each) if fixed > 0 else (0.0, times / rows)


PACE = Pace()
"""Of the stream in this process."""
process_state.reset_by(PACE.begin)


def note_total(origin: Any, batch: pa.RecordBatch) -> None:
    """Notes that rows of a MessageOrigin have been written just now."""
    event_us = origin.event_us()[rows_of(batch)]
    now = now_us()
    LATENCIES.add("total", now - event_us)
    messages = origin.messages
    PACE.observe(len(messages), (now - messages.pulled_us) / 1000, messages.rows_per_second)
