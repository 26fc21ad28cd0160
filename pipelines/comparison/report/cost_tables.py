"""Makes the tables of what the ways cost."""

from __future__ import annotations

from pipelines.comparison.demands import measured_up_to
from pipelines.comparison.report import words
from pipelines.comparison.report.cost_sentences import is_computed
from pipelines.comparison.report.data_table import DataTable, Heading, RowGroup, TableValue, headings, text, words_table
from pipelines.comparison.report.subject import subject_of
from pipelines.comparison.results import CostOfWay, Results, WayCosts


def month(results: Results, costs: WayCosts) -> DataTable:
    """Returns the cost of a month at the stated volume, and what it is made of."""
    names = list(dict.fromkeys(name for way in costs.ways for name in way.parts))
    lacks = any(way.missing for way in costs.ways)
    rows = tuple(
        (
            text(way.way),
            _amount(way.month, costs)._replace(detail=_computed(results, costs, way)),
            *(_amount(way.parts.get(name), costs) for name in names),
            text("; ".join(way.fleet)),
            *([text(", ".join(way.missing))] if lacks else []),
        )
        for way in costs.ways
    )
    return DataTable(
        f"Cost of a month at {words.count(costs.volume)} {costs.unit}, in {costs.currency}",
        (
            *headings("way", "a month", *(f"of this: {name}" for name in names)),
            Heading("what that takes", number=False),
            *([Heading("prices that are missing", number=False)] if lacks else []),
        ),
        (RowGroup("", rows),),
    )


def _computed(results: Results, costs: WayCosts, way: CostOfWay) -> str:
    most = measured_up_to(results, way.way)
    if most is None or way.month is None or not is_computed(results, way.way, costs.volume):
        return ""
    return f"computed, measured up to {words.count(most)}"


def _amount(value: float | None, costs: WayCosts) -> TableValue:
    return TableValue(
        words.NONE if value is None else words.money(value, costs.currency).removeprefix(costs.currency + " ")
    )


def runs(results: Results, costs: WayCosts) -> DataTable | None:
    """Returns the cost of a run at each load; None if none is known."""
    loads = sorted({load for way in costs.ways for load in way.runs}, key=float)
    rows = tuple((text(way.way), *(_amount(way.runs.get(load), costs) for load in loads)) for way in costs.ways)
    what = "one run" if results.kind == "batch" else "an hour"
    titles = headings("way", *(f"{words.count(float(load))} {subject_of(results).load}" for load in loads))
    return (
        DataTable(f"Cost of {what} as it was measured, in {costs.currency}", titles, (RowGroup("", rows),))
        if loads
        else None
    )


def break_evens(results: Results, costs: WayCosts) -> DataTable | None:
    """Returns where the cheapest way changes; None if it does not."""
    rows = tuple(
        (TableValue(words.number(each.volume)), text(each.below), text(each.above)) for each in costs.break_evens
    )
    titles = (Heading(costs.unit), Heading("cheapest below", number=False), Heading("cheapest above", number=False))
    loads = [words.count(each) for each in results.loads]
    note = f"Measured was from {loads[0]} to {loads[-1]}; what lies outside is computed." if loads else ""
    return DataTable("Where the cheapest way changes", titles, (RowGroup("", rows),), note) if rows else None


def prices(costs: WayCosts) -> DataTable | None:
    """Returns the prices with their dates and sources, and whether somebody has verified them; None without any."""
    rows = [(each, "unverified" if _is_unverified(each, costs) else "verified") for each in costs.prices]
    return words_table("Prices", ("price, with its date and source", "state"), rows) if rows else None


def _is_unverified(price: str, costs: WayCosts) -> bool:
    return any(price == name or price.startswith((f"{name}:", f"{name} ")) for name in costs.unverified)
