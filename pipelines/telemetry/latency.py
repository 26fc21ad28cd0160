"""Measures how long rows take, as percentiles of millions of them in a few kilobytes.

Durations fall into buckets that grow by 4%, from a microsecond to hours; a percentile is exact to that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipelines import process_state

P = TypeVar("P")
Counts = npt.NDArray[np.int64]

_GROWTH = 1.04
_SMALLEST_US = 1.0
_BUCKETS = 640

STAGES = ("lag", "wait", "read", "model", "write", "total")
"""Of a stream: lag, from the event to the source's receiving it; wait, for the batch to fill; model, in the model's
handler; total, from the event to the sink's having written it. Of a batch run, how long each took for the rows that
were worked on together: read, to get and decode them; model; write, to encode and write them.
"""


class Latencies:
    """Durations of each stage; added to from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Starts from nothing."""
        self._counts = {stage: np.zeros(_BUCKETS, np.int64) for stage in STAGES}

    def add(self, stage: str, microseconds: npt.NDArray[np.int64] | int, rows: int = 1) -> None:
        """Adds the durations of rows: one each, or one for `rows` of them."""
        found = np.maximum(np.atleast_1d(np.asarray(microseconds, np.float64)), _SMALLEST_US)
        buckets = np.minimum(np.log(found / _SMALLEST_US) / np.log(_GROWTH), _BUCKETS - 1).astype(np.int64)
        counted = np.bincount(buckets, minlength=_BUCKETS) * (rows if np.isscalar(microseconds) else 1)
        with self._lock:
            self._counts[stage] += counted

    def counts(self) -> dict[str, Counts]:
        """Returns what was added so far, by stage."""
        with self._lock:
            return {stage: counts.copy() for stage, counts in self._counts.items()}

    def percentiles(self, stage: str) -> dict[str, float]:
        """Returns milliseconds by name ("p50"); empty before the first row."""
        return percentiles(self.counts()[stage])


def percentiles(counts: Counts, wanted: tuple[float, ...] = (50, 95, 99)) -> dict[str, float]:
    """Returns milliseconds by name ("p50", at the end "max") of what was counted in one stage; empty if nothing was."""
    total = int(counts.sum())
    if not total:
        return {}
    reached = np.cumsum(counts)
    upper = _SMALLEST_US * _GROWTH ** (np.arange(_BUCKETS) + 1) / 1000
    found = {f"p{percent:g}": float(upper[np.searchsorted(reached, total * percent / 100)]) for percent in wanted}
    found["max"] = float(upper[np.flatnonzero(counts)[-1]])
    return {name: round(value, 3) for name, value in found.items()}


def stages_of(latencies: Latencies) -> dict[str, dict[str, float]]:
    """Returns the percentiles of each stage that was measured."""
    return {stage: found for stage in STAGES if (found := latencies.percentiles(stage))}


LATENCIES = Latencies()
process_state.reset_by(LATENCIES.clear)


def note_model(rows: int, microseconds: int) -> None:
    """Notes how long the model's handler took for rows."""
    LATENCIES.add("model", microseconds, rows)


def timed(stage: str, pieces: Iterator[P], rows_of: Callable[[P], int]) -> Iterator[P]:
    """Gives pieces on, and notes how long each took to come.

    Args:
      stage: what is done to get a piece.
      pieces: with rows.
      rows_of: tells how many rows a piece has; one with 0 is not noted.
    """
    while True:
        began = time.perf_counter()
        piece = next(pieces, None)
        if piece is None:
            return
        rows = rows_of(piece)
        if rows:
            LATENCIES.add(stage, int((time.perf_counter() - began) * 1e6), rows)
        yield piece
