"""Fits what each row costs, and what each run costs before its first row, to runs of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median


@dataclass(frozen=True)
class LinearFit:
    """Says what so many rows take: a fixed part, and a part for each row.

    Attributes:
      fixed: seconds of a processor for a run without rows.
      per_row: seconds of a processor for each row.
    """

    fixed: float = 0.0
    per_row: float = 0.0

    def of(self, rows: float) -> float:
        """Returns the seconds of a processor that a run of so many rows takes."""
        return self.fixed + self.per_row * rows

    def times(self, factor: float) -> LinearFit:
        """Returns the fit of something that takes so many times as long."""
        return LinearFit(self.fixed * factor, self.per_row * factor)


def fitted(points: Sequence[tuple[float, float]]) -> LinearFit:
    """Fits a line of which neither part is negative, by the median of the slopes between all pairs of runs.

    Pairs far apart count more (Theil and Sen's estimate, weighted by the distance): between small runs there is little
    but noise. One outlier among the smaller runs does not move it. Where seconds do not grow with the rows, what they
    vary by is taken to be for the rows, and with one size only all of them: noise makes no volume free.

    Args:
      points: rows and seconds of each run.

    >>> fitted([(100, 7.0), (1000, 16.0), (10000, 106.0)])
    LinearFit(fixed=6.0, per_row=0.01)
    >>> fitted([(100, 5.0)])
    LinearFit(fixed=0.0, per_row=0.05)
    """
    known = sorted((rows, max(seconds, 0.0)) for rows, seconds in points if rows > 0)
    if not known:
        return LinearFit()
    pairs = combinations(known, 2)
    slopes = [
        ((more - less) / (above - below), above - below) for (below, less), (above, more) in pairs if above > below
    ]
    if not slopes:
        return LinearFit(0.0, max(seconds for _, seconds in known) / known[0][0])
    slope = _weighted_median(slopes)
    if slope <= 0:
        seconds = [each for _, each in known]
        slope = (max(seconds) - min(seconds)) / (known[-1][0] - known[0][0])
    return LinearFit(max(0.0, median(seconds - slope * rows for rows, seconds in known)), slope)


def _weighted_median(values: Sequence[tuple[float, float]]) -> float:
    """Returns the value that half of the weight does not exceed; the values come with their weights."""
    half, passed = sum(weight for _, weight in values) / 2, 0.0
    for value, weight in sorted(values):
        passed += weight
        if passed >= half:
            return value
    return max(values)[0]
