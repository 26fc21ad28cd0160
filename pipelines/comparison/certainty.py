"""Says how sure a recommendation is, and why not more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.comparison.demands import measured_loads, share_of_start
from pipelines.comparison.report import words
from pipelines.comparison.results import BreakEven, Cell, Results

_FAR = 10
_NEAR = 2
_MOSTLY = 0.5
_LEVELS = ("high", "medium", "low")


@dataclass(frozen=True)
class Caution:
    """Says why one may not be sure.

    Attributes:
      text: why.
      weight: 0 if it is only to be known, 1 if the choice may be another one, 2 if it is little more than a guess.
    """

    text: str
    weight: int


@dataclass(frozen=True)
class Rival:
    """Describes what a way costs, and how fast it is.

    Attributes:
      way: its name.
      month: its cost.
      least: the least that it may cost; None if no interval is known.
      most: the most that it may cost.
      speed: its seconds or milliseconds.
    """

    way: str
    month: float
    least: float | None
    most: float | None
    speed: float | None


def certainty(said: Sequence[Caution]) -> str:
    """Returns `high`, `medium` or `low`: what the gravest caution leaves."""
    return _LEVELS[max((each.weight for each in said), default=0)]


def cautions(
    results: Results,
    rivals: Sequence[Rival],
    volume: float,
    cell: Cell | None,
    break_evens: Sequence[BreakEven],
    unverified: str,
    missing: Sequence[str],
) -> list[Caution]:
    """Lists why one may not be sure.

    Args:
      results: what was measured.
      rivals: the ways that do what is asked for, the best first.
      volume: rows a day, or messages a second.
      cell: what was measured of the best, at the load that tells most of the volume.
      break_evens: where the cheapest way changes.
      unverified: which prices nobody has verified, in words; empty if all are.
      missing: names of prices that are missing.
    """
    best = rivals[0].way
    said = [*_ties(rivals), *_measured(results, best, volume, cell), *_near(best, volume, break_evens)]
    if missing:
        said.append(
            Caution(f"prices are missing, so there may be something cheaper, or more to pay: {', '.join(missing)}", 1)
        )
    if unverified:
        said.append(Caution(f"nobody has verified {unverified}; give your own with --prices", 1))
    for found in results.parity:
        if found.way == best and (found.error or not found.agrees):
            said.append(Caution(f"its outputs were not found equal to those of {found.reference}", 1))
    machine = results.manifest.machine
    said.append(
        Caution(f"all was measured on {machine.cores} cores of {machine.cpu or 'an unknown processor'}, no cloud", 0)
    )
    return said


def _ties(rivals: Sequence[Rival]) -> Iterator[Caution]:
    """Ways whose cost may be the same as that of the best."""
    best = rivals[0]
    for other in rivals[1:]:
        most, least = (
            (best.month if best.most is None else best.most),
            other.month if other.least is None else other.least,
        )
        if least > most:
            continue
        same = "the same" if other.month == best.month else "the same within the intervals of what was measured"
        faster = ""
        if best.speed is not None and other.speed is not None and best.speed != other.speed:
            faster = f"; {(best if best.speed < other.speed else other).way} is faster"
        yield Caution(f"a tie with {other.way}: both cost {same}{faster}", 1)


def _measured(results: Results, best: str, volume: float, cell: Cell | None) -> Iterator[Caution]:
    loads = measured_loads(results)
    what = "rows" if results.kind == "batch" else "messages a second"
    if volume > max(loads):
        times = volume / max(loads)
        weight = 2 if times > _FAR else 1
        yield Caution(
            f"the volume is {words.short(times)} times the largest load that was measured, {max(loads):,.15g} {what}",
            weight,
        )
    if len(loads) == 1:
        yield Caution("one load only was measured: what a run takes before its first row is counted as its rows'", 1)
    if (share := share_of_start(results, results.way(best))) > _MOSTLY:
        yield Caution(
            f"starting took {share:.0%} of its largest run, so what a row takes is little known: measure larger loads",
            1,
        )
    rounds = max((figure.rounds for figure in cell.figures.values()), default=1) if cell else 1
    if rounds == 1:
        yield Caution("it was measured in one round only: how much its figures vary is not known", 2)


def _near(best: str, volume: float, break_evens: Sequence[BreakEven]) -> Iterator[Caution]:
    """Volumes close by at which another way is the cheapest."""
    for each in break_evens:
        if not volume or not 1 / _NEAR <= each.volume / volume <= _NEAR:
            continue
        other = each.below if each.volume <= volume else each.above
        if other != best:
            side = "below" if each.volume <= volume else "from"
            yield Caution(f"{side} {words.short(each.volume)}, which is near, {other} is the cheapest", 1)
