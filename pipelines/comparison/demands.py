"""Takes out of results what each way takes for each row, and at which load to look."""

from __future__ import annotations

from pipelines.comparison.results import Cell, Results, Way
from pipelines.cost.fits import LinearFit, fitted
from pipelines.cost.ways import Demand

FELL_BEHIND = "it did not keep up"
"""Begins the reason why a stream is not ranked that was slower than its messages came."""

_MB_A_GB = 1024
_MOST_OFF = 1000.0


def ranked(results: Results) -> list[Way]:
    """Returns the ways that have a place at any load, in the order of the config."""
    names = {place.way for ranking in results.rankings for place in ranking.places}
    return [way for way in results.ways if way.name in names]


def counted(results: Results, way: str) -> list[Cell]:
    """Returns the cells of a way that say what its pipeline took."""
    return [
        cell
        for cell in results.cells
        if cell.way == way and not cell.left_out and "pipeline_cpu_s" in cell.figures and rows_of(results, cell) >= 1
    ]


def rows_of(results: Results, cell: Cell) -> float:
    """Returns the rows or messages of one run."""
    if rows := _median(cell, "rows_read"):
        return rows
    return cell.load if results.kind == "batch" else cell.load * _median(cell, "work_s")


def demand_of(results: Results, way: Way) -> Demand:
    """Fits what a way takes to all loads at which it was measured."""
    cells = counted(results, way.name)
    return Demand(
        way.kind,
        fitted([(rows_of(results, cell), _median(cell, "pipeline_cpu_s")) for cell in cells]),
        _server(results, way, cells),
        max((_median(cell, "pipeline_peak_mb") for cell in cells), default=0.0) / _MB_A_GB,
        max((_median(cell, "server_peak_mb") for cell in cells), default=0.0) / _MB_A_GB,
    )


def demand_at(results: Results, way: Way, cell: Cell) -> Demand:
    """Returns what a way took at one load, all of it for its rows."""
    whole = demand_of(results, way)
    rows = rows_of(results, cell)
    server = LinearFit(0.0, _median(cell, "server_cpu_s") / rows) if "server_cpu_s" in cell.figures else None
    pipeline = LinearFit(0.0, _median(cell, "pipeline_cpu_s") / rows)
    return Demand(way.kind, pipeline, server, whole.pipeline_gb, whole.server_gb)


def spread(results: Results, way: str) -> tuple[float, float] | None:
    """Returns by which factors a way's use of processors may be off; None if no figure has an interval."""
    low, high, known = 1.0, 1.0, False
    for cell in counted(results, way):
        figure = cell.figures.get("cpu_s") or cell.figures["pipeline_cpu_s"]
        if figure.low is None or figure.high is None or figure.median <= 0:
            continue
        known = True
        low, high = (
            min(low, max(0.0, figure.low / figure.median)),
            max(high, min(figure.high / figure.median, _MOST_OFF)),
        )
    return (low, high) if known else None


def share_of_start(results: Results, way: Way) -> float:
    """Returns which share of what the pipeline took, in the largest run of a way, was not for its rows."""
    rows = max((rows_of(results, cell) for cell in counted(results, way.name)), default=0.0)
    pipeline = demand_of(results, way).pipeline
    return pipeline.fixed / whole if (whole := pipeline.of(rows)) else 0.0


def measured_loads(results: Results) -> list[float]:
    """Returns the loads at which any way has a place, ascending; all loads if none has one."""
    loads = {ranking.load for ranking in results.rankings if ranking.places}
    return sorted(loads or {ranking.load for ranking in results.rankings})


def measured_up_to(results: Results, way: str) -> float | None:
    """Returns the largest load at which a way has a place; None if it has none."""
    loads = [each.load for each in results.rankings if any(place.way == way for place in each.places)]
    return max(loads, default=None)


def has_fallen_behind(results: Results, way: str, load: float) -> bool:
    """Tells whether a way was slower than its messages came."""
    return any(each.load == load and each.not_ranked.get(way, "").startswith(FELL_BEHIND) for each in results.rankings)


def load_for(results: Results, volume: float) -> float:
    """Returns the load whose figures tell most of a volume: the least that is not below it, or the largest.

    Args:
      results: what was measured; it has rankings.
      volume: rows of a run, or messages a second.
    """
    loads = measured_loads(results)
    return next((load for load in loads if load >= volume), loads[-1])


def _server(results: Results, way: Way, cells: list[Cell]) -> LinearFit | None:
    if way.kind == "direct":
        return None
    points = [(rows_of(results, c), _median(c, "server_cpu_s")) for c in cells if "server_cpu_s" in c.figures]
    return fitted(points) if points else None


def _median(cell: Cell, name: str) -> float:
    return max(0.0, cell.figures[name].median) if name in cell.figures else 0.0
