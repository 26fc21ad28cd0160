"""Sums up runs: medians with 95% intervals, outliers, ties."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.comparison.results import Cell, Figure, RankedPlace, Ranking, Run

STUDENT_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5% points of Student's distribution with 1 to 30 degrees of freedom."""
_FEWEST_FOR_RANKS = 6
"""Rounds from which an interval between two of the values covers the median with 95%."""
_FEWEST_FOR_OUTLIERS = 4
_FAR = 3.5
"""Distances from the median, in normal standard deviations, from which a value is an outlier."""
_MOST_DECIMALS = 3
_NOISE = 1e-9
"""Deviation of logarithms that only comes from rounding."""
_SCALE = 0.6745
"""Of the median distance of normal values from their median, in standard deviations."""
_FINE = 0.02
"""Values that are as near as this to their median are no outliers, whatever the others are."""

SHOWN = ("elapsed_s", "start_s", "work_s", "end_s", "pipeline_cpu_s", "server_cpu_s", "pipeline_peak_mb",
         "server_peak_mb", "requests", "requests_repeated", "bytes_sent", "rows_read", "rows_written",
         "rows_dead_lettered")  # fmt: skip
"""The members of a run that are summed up as they are."""


@dataclass(frozen=True)
class Spread:
    """Says how much a figure varies between rounds, over all ways and loads.

    Attributes:
      deviation: standard deviation of the logarithms of its values, within ways and loads.
      freedom: degrees of freedom: rounds less the number of ways and loads.
    """

    deviation: float
    freedom: int


def spread(groups: Iterable[Sequence[float]]) -> Spread | None:
    """Returns how much the values of groups vary within them; None where values are not all above 0, or too few.

    >>> spread([[1.0, 1.1], [10.0, 11.0], [5.0]]).freedom
    2
    """
    squares, freedom = 0.0, 0
    for values in groups:
        if min(values) <= 0:
            return None
        logs = [math.log(value) for value in values]
        center = statistics.fmean(logs)
        squares += sum((each - center) ** 2 for each in logs)
        freedom += len(values) - 1
    return Spread(math.sqrt(squares / freedom), freedom) if freedom else None


def figure(values: Sequence[float], shared: Spread | None = None) -> Figure:
    """Sums up the values of rounds.

    From six values on, the interval lies between two of them, by their ranks, whatever their distribution. Of fewer,
    it is Student's, of the logarithms where all values are above 0: times vary by factors. Few values tell little of
    how much they vary; what all ways and loads tell of it together is taken, unless these vary more.

    Args:
      values: of the rounds.
      shared: how much values of other ways and loads vary too.

    >>> figure([3.0])
    Figure(median=3.0, low=None, high=None, rounds=1)
    >>> found = figure([1.0, 1.1, 1.2])
    >>> found.median, round(found.low, 2), round(found.high, 2)
    (1.1, 0.87, 1.38)
    >>> found = figure([1.0, 1.1], Spread(0.05, 20))
    >>> round(found.low, 2), round(found.high, 2)
    (0.95, 1.16)
    """
    ordered = sorted(values)
    count = len(ordered)
    median = statistics.median(ordered)
    if count > 1 and ordered[0] == ordered[-1] and (shared is None or shared.deviation < _NOISE):
        # Through logarithms and back, 1000 rows would be 999.9999999999998.
        return Figure(median=median, low=median, high=median, rounds=count)
    is_positive = ordered[0] > 0
    if count == 1 and (shared is None or not is_positive):
        return Figure(median=median)
    if count >= _FEWEST_FOR_RANKS:
        rank = _low_rank(count)
        return Figure(median=median, low=ordered[rank], high=ordered[count - 1 - rank], rounds=count)
    if is_positive:
        logs = [math.log(value) for value in ordered]
        center, own = statistics.fmean(logs), statistics.stdev(logs) if count > 1 else 0.0
        deviation, freedom = (own, count - 1) if shared is None else (max(own, shared.deviation), shared.freedom)
        half = _student(freedom) * deviation / math.sqrt(count)
        low, high = math.exp(max(center - half, -700.0)), math.exp(min(center + half, 700.0))
    else:
        center, half = statistics.fmean(ordered), _student(count - 1) * statistics.stdev(ordered) / math.sqrt(count)
        low, high = center - half, center + half
        # What cannot be below 0, such as seconds of processors, has no interval that is.
        low = max(low, 0.0) if ordered[0] >= 0 else low
    return Figure(median=median, low=min(low, median), high=max(high, median), rounds=count)


def _student(freedom: int) -> float:
    return STUDENT_95[min(freedom, len(STUDENT_95)) - 1]


def _low_rank(count: int) -> int:
    """The greatest rank, from 0, such that the median lies below that value with 2.5% at most."""
    rank, chance = -1, 0.0
    while True:
        chance += math.comb(count, rank + 1) / 2**count
        if chance > 0.025:
            return max(rank, 0)
        rank += 1


def is_narrow(found: Figure, precision: float) -> bool:
    """Tells whether half the width of an interval is at most so much of its median."""
    if found.low is None or found.high is None:
        return False
    return (found.high - found.low) / 2 <= precision * abs(found.median)


def outliers(values: Sequence[float]) -> list[bool]:
    """Says which values are far from the others, by the median of their distances; none of fewer than four.

    >>> outliers([1.0, 1.01, 0.99, 1.02, 3.0])
    [False, False, False, False, True]
    """
    if len(values) < _FEWEST_FOR_OUTLIERS:
        return [False] * len(values)
    median = statistics.median(values)
    distances = [abs(value - median) for value in values]
    spread = max(statistics.median(distances), 1e-12)
    return [distance > _FINE * abs(median) and _SCALE * distance / spread > _FAR for distance in distances]


def with_outliers(runs: Sequence[Run], name: str) -> list[Run]:
    """Marks the runs whose figure is far from those of the other rounds of the same way and load."""
    found = list(runs)
    groups: dict[tuple[str, float], list[int]] = {}
    for index, run in enumerate(runs):
        if run.ok and run.round:
            groups.setdefault((run.way, run.load), []).append(index)
    for indices in groups.values():
        values = [figures_of(runs[index]).get(name, 0.0) for index in indices]
        for index, is_far in zip(indices, outliers(values), strict=True):
            if is_far:
                found[index] = runs[index].model_copy(update={"outlier": name})
    return found


def figures_of(run: Run) -> dict[str, float]:
    """Returns the figures of one run by name, see `Cell.figures`."""
    found = {name: float(value) for name in SHOWN if (value := getattr(run, name)) is not None}
    found["rows_per_second"] = run.rows_read / run.elapsed_s if run.elapsed_s else 0.0
    found["cpu_s"] = run.pipeline_cpu_s + (run.server_cpu_s or 0.0)
    found |= {f"steps.{name}": seconds for name, seconds in run.steps_s.items()}
    found |= {
        f"latency.{stage}.{name}": value for stage, values in run.latency_ms.items() for name, value in values.items()
    }
    return found


def spreads(runs: Iterable[Run]) -> dict[str, Spread]:
    """Returns how much each figure varies between the rounds of the same way and load."""
    groups: dict[str, dict[tuple[str, float], list[float]]] = {}
    for run in runs:
        if run.ok and run.round:
            for name, value in figures_of(run).items():
                groups.setdefault(name, {}).setdefault((run.way, run.load), []).append(value)
    found = {name: spread(by_slot.values()) for name, by_slot in groups.items()}
    return {name: each for name, each in found.items() if each is not None}


def cell(
    way: str, load: float, runs: Iterable[Run], left_out: str = "", shared: Mapping[str, Spread] | None = None
) -> Cell:
    """Sums up the runs of a way at a load.

    Args:
      way: name of the way.
      load: the load.
      runs: all runs.
      left_out: why it was not run.
      shared: how much each figure varies, see `spreads`.
    """
    counted = [figures_of(run) for run in runs if run.ok and run.round and (run.way, run.load) == (way, load)]
    # A figure that a run does not have is in no sum.
    names = [name for name in (counted[0] if counted else {}) if all(name in each for each in counted)]
    known = shared or {}
    figures = {name: figure([each[name] for each in counted], known.get(name)) for name in names}
    return Cell(way=way, load=load, figures=figures, left_out=left_out)


@dataclass(frozen=True)
class Contestant:
    """Describes a way that is ranked at a load.

    Attributes:
      way: its name.
      figure: what it is ranked by.
    """

    way: str
    figure: Figure


def ranking(load: float, name: str, contestants: Sequence[Contestant], not_ranked: dict[str, str]) -> Ranking:
    """Ranks ways, the least first; those whose intervals overlap with that of the best of their group share a place.

    Args:
      load: rows of a batch run, messages a second of a stream.
      name: of the figure.
      contestants: the ways.
      not_ranked: ways that are not ranked, and why.
    """
    ordered = sorted(contestants, key=lambda each: each.figure.median)
    groups: list[list[Contestant]] = []
    for each in ordered:
        if groups and overlap(groups[-1][0].figure, each.figure):
            groups[-1].append(each)
        else:
            groups.append([each])
    places: list[RankedPlace] = []
    for group in groups:
        place = len(places) + 1
        for each in group:
            value = each.figure.median
            best = ordered[0].figure.median
            ratio = value / best if best > 0 else 1.0
            places.append(RankedPlace(way=each.way, place=place, value=value, ratio=ratio, tied=len(group) > 1))
    return Ranking(load=load, figure=name, places=tuple(places), not_ranked=not_ranked)


def overlap(one: Figure, other: Figure) -> bool:
    """Tells whether the intervals of two figures overlap; one round counts as an interval of 5% around it.

    Ends are compared as they are printed: intervals that touch in a report overlap.
    """
    bounds = [
        tuple(
            map(
                _printed,
                (0.95 * each.median, 1.05 * each.median)
                if each.low is None or each.high is None
                else (each.low, each.high),
            )
        )
        for each in (one, other)
    ]
    return bounds[0][0] <= bounds[1][1] and bounds[1][0] <= bounds[0][1]


def _printed(value: float) -> float:
    """A figure with the digits that a report shows: three that matter, three decimals at most, no part of a whole."""
    if not value:
        return 0.0
    return round(value, max(0, min(_MOST_DECIMALS, 2 - math.floor(math.log10(abs(value))))))
