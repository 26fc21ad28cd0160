"""Says in sentences what the ways cost, and what of that is computed beyond what was measured."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.comparison.demands import has_fallen_behind, measured_loads, measured_up_to
from pipelines.comparison.report import words
from pipelines.comparison.report.subject import subject_of
from pipelines.comparison.results import BreakEven, Results, WayCosts


def costs_in_words(results: Results) -> str:
    """Returns what a month costs, and where the cheapest way changes; empty if there are no prices."""
    costs = results.costs
    if costs is None:
        return ""
    known = sorted((each.month, each.way) for each in costs.ways if each.month is not None and not each.missing)
    if not known:
        why = (
            "no way is ranked, so none has a cost"
            if not costs.ways
            else "no way has a cost that is known: prices are missing"
            if any(each.missing for each in costs.ways)
            else "no way has a cost that is known from what was measured"
        )
        return f"{_at(costs)}, {why}."
    found = [*_months(results, costs, known), *(_change(results, costs, each) for each in costs.break_evens)]
    if len(known) > 1 and not costs.break_evens:
        found += _no_change(results, costs)
    if costs.unverified:
        all_of_them = len(costs.unverified) >= len(costs.prices)
        found.append("Nobody has verified the prices." if all_of_them else "Some prices are not verified.")
    return " ".join(found)


def is_computed(results: Results, way: str, volume: float) -> bool:
    """Tells whether a way was not measured at so much, or did not keep up with it."""
    most = measured_up_to(results, way)
    return most is not None and volume > most


def _at(costs: WayCosts) -> str:
    return f"At {words.count(costs.volume)} {costs.unit}"


def _months(results: Results, costs: WayCosts, known: list[tuple[float, str]]) -> Iterator[str]:
    beyond = [each for each in known if is_computed(results, each[1], costs.volume)]
    is_far = len(beyond) == len(known)
    (month, way), *more = known if is_far else [each for each in known if each not in beyond]
    cheapest = "the cheapest of the ways that were measured there" if beyond and not is_far else "cheapest"
    yield f"{_at(costs)}, {words.name_of(way)} is {cheapest}: {words.money(month, costs.currency)} a month."
    if more:
        each = [f"{words.name_of(name)} costs {words.money(cost, costs.currency)}" for cost, name in more]
        yield words.upper_first(f"{words.listed(each)} a month.")
    if is_far:
        yield words.upper_first(f"{_far(results, costs.volume)}.")
        return
    for cost, name in beyond:
        behind = "it did not keep up" if has_fallen_behind(results, name, costs.volume) else "it was not measured there"
        most = measured_up_to(results, name) or 0.0
        yield words.upper_first(
            f"{words.name_of(name)} would cost {words.money(cost, costs.currency)}, computed from what was measured up "
            f"to {subject_of(results).at(most)}: {behind}."
        )


def _far(results: Results, volume: float) -> str:
    """That a volume is beyond what was measured, and how far."""
    most = max(measured_loads(results))
    return (
        f"computed, not measured: this is {words.times(volume / most)} times the largest load that was measured, "
        f"{subject_of(results).at(most)}"
    )


def _change(results: Results, costs: WayCosts, change: BreakEven) -> str:
    said = (
        f"{words.name_of(change.above)} becomes the cheapest from about {words.number(change.volume)} {costs.unit} on"
    )
    ends = [most for way in (change.below, change.above) if (most := measured_up_to(results, way)) is not None]
    loads, at = measured_loads(results), subject_of(results).at
    if change.volume > max(loads):
        said += f" ({_far(results, change.volume)})"
    elif ends and change.volume > min(ends):
        said += f" (computed, not measured: one of the two was measured up to {at(min(ends))} only)"
    elif change.volume < min(loads):
        said += f" (computed, not measured: the least load that was measured is {at(min(loads))})"
    return words.upper_first(f"{said}.")


def _no_change(results: Results, costs: WayCosts) -> Iterator[str]:
    volumes = sorted(volume for each in costs.ways for volume, _ in each.curve)
    if not volumes:
        return
    loads = measured_loads(results)
    measured = (
        f"at the {words.count(loads[0])} {costs.unit} that were measured"
        if len(loads) == 1
        else f"between {words.count(loads[0])} and {words.count(loads[-1])} {costs.unit}, which were measured"
    )
    yield (
        f"No other way is cheaper {measured}; computed, not measured, none is from {words.count(volumes[0])} to "
        f"{words.count(volumes[-1])} either."
    )
