"""Recommends a way to call the model: the cheapest of those that do what is asked for, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipelines.comparison.certainty import Caution, Rival, cautions, certainty
from pipelines.comparison.constraints import reason_against
from pipelines.comparison.costs import UNITS, break_evens_between, month_of, stated_volume, unverified_in_words
from pipelines.comparison.demands import demand_of, load_for, spread
from pipelines.comparison.report import words
from pipelines.comparison.results import BreakEven, Cell, Figure, Results, Way
from pipelines.cost.assumptions import Assumptions
from pipelines.cost.machines import Tariff
from pipelines.cost.prices import Prices
from pipelines.cost.ways import Bill

SPEED = {"batch": "elapsed_s", "stream": "latency.total.p99"}
"""The figure that is weighed against the cost."""


@dataclass(frozen=True)
class Wish:
    """Holds what is asked for.

    Attributes:
      latency_ms: the most that 99 of 100 messages may take; None if that does not matter.
      within_hours: in which time a batch run is to end, if that was asked for.
      constraints: names of constraints.
    """

    latency_ms: float | None = None
    within_hours: float | None = None
    constraints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """Describes a way that was weighed.

    Attributes:
      way: the way.
      bill: what a month of it costs.
      least: what a month costs at least, by the intervals of what was measured; None if there are none.
      most: likewise at most.
      speed: its figure of `SPEED`; None if it was not measured.
      left_out: why it does not do, one reason for each thing that was asked for; empty if it does.
      is_on_front: whether no other way that does is both as cheap and as fast, and better in one.
    """

    way: Way
    bill: Bill
    least: float | None = None
    most: float | None = None
    speed: Figure | None = None
    left_out: tuple[str, ...] = ()
    is_on_front: bool = False

    @property
    def month(self) -> float | None:
        """Returns the cost of a month; None if it is not known."""
        return self.bill.total


@dataclass(frozen=True)
class Recommendation:
    """Says which way to take.

    Attributes:
      results: of the comparison.
      volume: rows a day, or messages a second.
      unit: of the volume.
      currency: of all amounts.
      load: that was measured, and tells most of the volume.
      candidates: the ways, those that do what is asked for first, the cheapest first.
      break_evens: where another of the ways that do becomes the cheapest.
      cautions: why one may not be sure.
      sure: `high`, `medium` or `low`.
      assumptions: what the costs take for granted, one sentence each.
    """

    results: Results
    volume: float
    unit: str
    currency: str
    load: float
    candidates: tuple[Candidate, ...]
    break_evens: tuple[BreakEven, ...] = ()
    cautions: tuple[Caution, ...] = ()
    sure: str = ""
    assumptions: tuple[str, ...] = ()

    @property
    def feasible(self) -> tuple[Candidate, ...]:
        """Returns the ways that do what is asked for, the cheapest first."""
        return tuple(each for each in self.candidates if not each.left_out)

    @property
    def best(self) -> Candidate | None:
        """Returns the way that is recommended; None if no way does."""
        return next(iter(self.feasible), None)

    @property
    def speed_name(self) -> str:
        """Returns what is weighed against the cost, in words."""
        return "elapsed" if self.results.kind == "batch" else "p99"


def recommend(results: Results, prices: Prices, given: Assumptions, wish: Wish) -> Recommendation:
    """Weighs the ways of a comparison.

    Args:
      results: what was measured.
      prices: of machines and services.
      given: what cannot be measured on one machine, and the volume.
      wish: what is asked for.
    """
    tariff = Tariff(prices, given)
    volume = stated_volume(results, given)
    load = load_for(results, volume)
    weighed = [_candidate(results, way, volume, load, tariff, wish) for way in results.ways]
    feasible = _with_front(sorted((each for each in weighed if not each.left_out), key=_order))
    ways = [each.way for each in feasible]
    found = Recommendation(
        results,
        volume,
        UNITS[results.kind],
        prices.currency,
        load,
        (*feasible, *(each for each in weighed if each.left_out)),
        break_evens_between(results, ways, tariff, volume),
        assumptions=given.sentences(results.kind, {way.kind for way in ways}),
    )
    if not feasible:
        return found
    cell = results.cell(feasible[0].way.name, load)
    rivals = [Rival(each.way.name, each.month or 0.0, each.least, each.most, _median(each.speed)) for each in feasible]
    said = cautions(
        results,
        rivals,
        volume,
        cell,
        found.break_evens,
        unverified_in_words(results, ways, prices),
        feasible[0].bill.missing,
    )
    said += _close_to_target(feasible[0], wish)
    return replace(found, cautions=tuple(said), sure=certainty(said))


def _candidate(results: Results, way: Way, volume: float, load: float, tariff: Tariff, wish: Wish) -> Candidate:
    cell = results.cell(way.name, load)
    demand = demand_of(results, way)
    bill = month_of(results.kind, demand, volume, tariff)
    speed = cell.figures.get(SPEED[results.kind]) if cell and not cell.left_out else None
    least = most = None
    if off := spread(results, way.name):
        least, most = (month_of(results.kind, demand.times(factor), volume, tariff).total for factor in off)
    reasons = tuple(_reasons(results, way, load, bill, speed, wish, cell))
    return Candidate(way, bill, least, most, speed, reasons)


def _reasons(
    results: Results, way: Way, load: float, bill: Bill, speed: Figure | None, wish: Wish, cell: Cell | None
) -> Iterator[str]:
    """Why a way does not do."""
    ranking = next((each for each in results.rankings if each.load == load), None)
    places = [place.way for place in ranking.places] if ranking else []
    if way.name not in places:
        why = ranking.not_ranked.get(way.name, "") if ranking else ""
        why = why or (cell.left_out if cell else "") or "it was not measured there"
        yield f"not ranked at {load:,.15g} {'rows' if results.kind == 'batch' else 'messages a second'}: {why}"
    for name in wish.constraints:
        if why := reason_against(name, way.kind) or "":
            yield f"--constraint {name}: {why}"
    if wish.latency_ms is not None and results.kind == "stream":
        if speed is None:
            yield f"--latency-ms {wish.latency_ms:g}: its latency was not measured"
        elif speed.median > wish.latency_ms:
            yield f"--latency-ms {wish.latency_ms:g}: its p99 is {words.short(speed.median, 4)} ms"
    if bill.problem:
        is_late = results.kind == "batch" and wish.within_hours is not None and "starting" in bill.problem
        yield f"--within {wish.within_hours:g}: {bill.problem}" if is_late else f"no cost: {bill.problem}"


def _order(candidate: Candidate) -> tuple[float, float]:
    """The cheaper first; of two that cost the same, the faster."""
    month = candidate.month or 0.0
    return (float(f"{month:.9g}"), _median(candidate.speed) or float("inf"))


def _with_front(feasible: Sequence[Candidate]) -> list[Candidate]:
    """Marks the ways that are on the Pareto front of cost and speed; a way without a speed is not on it."""
    marked = []
    for each in feasible:
        cost, speed = _order(each)
        better = [other for other in map(_order, feasible) if other != (cost, speed)]
        on_front = each.speed is not None and not any(other[0] <= cost and other[1] <= speed for other in better)
        marked.append(replace(each, is_on_front=on_front))
    return marked


def _close_to_target(best: Candidate, wish: Wish) -> list[Caution]:
    high = best.speed.high if best.speed else None
    if wish.latency_ms is None or high is None or high <= wish.latency_ms:
        return []
    return [Caution(f"its p99 may be as much as {words.short(high, 4)} ms, which is above {wish.latency_ms:g}", 1)]


def _median(figure: Figure | None) -> float | None:
    return figure.median if figure else None
