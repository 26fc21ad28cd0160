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
    """Fits a line by the median of all slopes (Theil and Sen), of which neither part is negative.

    One outlier in five does not move it. Where rows do not tell (one size only, or seconds that do not grow with the
    rows), all seconds of the largest run are taken to be for its rows: large volumes are not made free by noise.

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
    slopes = [
        (more - less) / (above - below) for (below, less), (above, more) in combinations(known, 2) if above > below
    ]
    slope = median(slopes) if slopes else 0.0
    if slope <= 0:
        rows, seconds = known[-1]
        return LinearFit(0.0, seconds / rows)
    return LinearFit(max(0.0, median(seconds - slope * rows for rows, seconds in known)), slope)
