"""Turns what a comparison has measured into what the ways cost in a month, and where the cheapest one changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pipelines.comparison.demands import counted, demand_at, demand_of, has_fallen_behind, ranked, rows_of
from pipelines.comparison.results import BreakEven, CostOfWay, Results, Way, WayCosts
from pipelines.cost.assumptions import Assumptions
from pipelines.cost.break_evens import flips, readable, volumes_between
from pipelines.cost.machines import DISK, NODES, PUBSUB, STREAMED, TABLE, Tariff, worker_prices
from pipelines.cost.prices import Prices
from pipelines.cost.ways import Bill, Demand, batch_month, batch_run, stream_hour, stream_month

UNITS = {"batch": "rows a day", "stream": "messages a second"}

_CURVE_A_DECADE = 8
_LEAST, _MOST = 1e-3, 1e15


def costs_of(results: Results, prices: Prices, assumptions: Assumptions) -> WayCosts:
    """Returns what each way that is ranked costs.

    Args:
      results: what was measured.
      prices: of machines and services.
      assumptions: what cannot be measured on one machine, and the volume.
    """
    tariff = Tariff(prices, assumptions)
    volume = stated_volume(results, assumptions)
    ways = ranked(results)
    low, high = _range(results, volume)
    names = _prices(results, ways)
    taken = assumptions.sentences(results.kind, {way.kind for way in ways})
    return WayCosts(
        currency=prices.currency,
        volume=volume,
        stated=assumptions.volume is not None,
        unit=UNITS[results.kind],
        ways=tuple(_cost_of(results, way, tariff, volume, (low, high)) for way in ways),
        break_evens=break_evens_between(results, ways, tariff, volume),
        prices=tuple(
            f"{name}: {found.amount:g} {prices.currency}, {found.date}, {found.source}"
            f"{', of --prices' if name in prices.own else ''}"
            for name in names
            if (found := prices.prices.get(name))
        ),
        unverified=unverified_prices(results, ways, prices),
        assumptions=(*taken, *filter(None, [prices.origin(names)])),
    )


def break_evens_between(results: Results, ways: Sequence[Way], tariff: Tariff, volume: float) -> tuple[BreakEven, ...]:
    """Returns the volumes at which another of these ways becomes the cheapest.

    Args:
      results: what was measured.
      ways: that are compared.
      tariff: what machines cost.
      volume: around which they are looked for, and around the loads that were measured.
    """
    curves = {way.name: _monthly(results, way, tariff) for way in ways}
    found = readable(flips(curves, volumes_between(*_range(results, volume))))
    return tuple(BreakEven(volume=each.volume, below=each.below, above=each.above) for each in found)


def unverified_prices(results: Results, ways: Sequence[Way], prices: Prices) -> tuple[str, ...]:
    """Returns the names of those prices that the costs of these ways depend on, and that nobody has verified."""
    names = _prices(results, ways)
    return tuple(name for name in names if name in prices.prices and not prices.prices[name].verified)


def unverified_in_words(results: Results, ways: Sequence[Way], prices: Prices) -> str:
    """Returns how many of the prices of these ways nobody has verified, and their dates; nothing if all are."""
    names = unverified_prices(results, ways, prices)
    if not names:
        return ""
    needed = sum(name in prices.prices for name in _prices(results, ways))
    some = "any" if len(names) == needed else len(names)
    return f"{some} of the {needed} prices that are needed, of {prices.dates(list(names))}"


def origin_of_prices(results: Results, ways: Sequence[Way], prices: Prices) -> str:
    """Returns which of the prices of these ways are a person's own, as a sentence; empty if no file was given."""
    return prices.origin(_prices(results, ways))


def stated_volume(results: Results, assumptions: Assumptions) -> float:
    """Returns the volume of the assumptions, or the largest load that was measured."""
    return max(results.loads, default=0.0) if assumptions.volume is None else assumptions.volume


def month_of(kind: str, demand: Demand, volume: float, tariff: Tariff) -> Bill:
    """Returns what a month costs, of batch runs or of a stream."""
    return (batch_month if kind == "batch" else stream_month)(demand, volume, tariff)


def _monthly(results: Results, way: Way, tariff: Tariff) -> Callable[[float], float | None]:
    demand = demand_of(results, way)
    return lambda volume: month_of(results.kind, demand, volume, tariff).total


def _cost_of(results: Results, way: Way, tariff: Tariff, volume: float, between: tuple[float, float]) -> CostOfWay:
    bill = month_of(results.kind, demand_of(results, way), volume, tariff)
    monthly = _monthly(results, way, tariff)
    curve = {each: cost for each in volumes_between(*between, _CURVE_A_DECADE) if (cost := monthly(each)) is not None}
    if volume and bill.total is not None:
        curve[volume] = bill.total
    return CostOfWay(
        way=way.name,
        runs=_runs(results, way, tariff),
        month=bill.total,
        parts={} if bill.total is None else bill.parts,
        curve=tuple(sorted(curve.items())),
        fleet=bill.fleet,
        missing=bill.missing,
    )


def _runs(results: Results, way: Way, tariff: Tariff) -> dict[str, float]:
    """Cost of one run of each load as it was measured, of streams of an hour; not where a stream fell behind."""
    found = {}
    for cell in counted(results, way.name):
        if has_fallen_behind(results, way.name, cell.load):
            continue
        demand = demand_at(results, way, cell)
        if results.kind == "batch":
            cost = batch_run(demand, rows_of(results, cell), tariff).total
        else:
            cost = stream_hour(demand, cell.load, tariff).total
        if cost is not None:
            found[f"{cell.load:.15g}"] = cost
    return found


def _range(results: Results, volume: float) -> tuple[float, float]:
    """Volumes between which costs are shown: two decades around what was measured and what is stated, and whole."""
    known = [each for each in (*results.loads, volume) if each > 0] or [1.0]
    low = 10.0 ** math.floor(math.log10(min(known)) - 1)
    high = 10.0 ** math.ceil(math.log10(max(known)) + 2)
    return min(max(low, _LEAST), _MOST / 10), min(high, _MOST)


def _prices(results: Results, ways: Sequence[Way]) -> list[str]:
    """Names of the prices that the costs of these ways depend on."""
    kinds = {way.kind for way in ways}
    names = [*worker_prices("batch" if results.kind == "batch" else "streaming"), DISK]
    if "endpoint" in kinds:
        names += [each.node_price("online") for each in NODES]
    if results.kind == "stream":
        return [*names, PUBSUB, STREAMED, TABLE]
    return [*names, *(each.node_price("batch") for each in NODES)] if "batch_job" in kinds else names
