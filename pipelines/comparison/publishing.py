"""Writes what a comparison has found: results.json, report.html, plots."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines import storage
from pipelines.comparison.costs import costs_of
from pipelines.comparison.folder import put_aside
from pipelines.comparison.report import charts, page
from pipelines.comparison.results import Results
from pipelines.config.comparison import ComparisonConfig
from pipelines.cost.assumptions import Assumptions
from pipelines.cost.prices import Prices

_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Published:
    """Says where the results are.

    Attributes:
      results: the results, with their costs.
      json: path of results.json.
      report: path of report.html.
      notes: what a person should know, one line each.
    """

    results: Results
    json: str
    report: str
    notes: tuple[str, ...] = ()


def publish(results: Results, config: ComparisonConfig, prices: Prices, folder: Path) -> Published:
    """Prices results, and writes them and their report.

    Args:
      results: without costs.
      config: of the comparison.
      prices: what the costs are computed with.
      folder: where to; what others have put in the place of the results is renamed.
    """
    results = results.model_copy(update={"costs": costs_of(results, prices, Assumptions(volume=config.volume))})
    path = folder / "results.json"
    notes = () if _is_of(path, results.name) else tuple(_put_aside_in(folder))
    storage.write_whole(str(path), (results.model_dump_json(indent=1) + "\n").encode())
    return Published(results, str(path), page.write(results, str(folder)), notes)


def _is_of(path: Path, name: str) -> bool:
    """Tells whether a file has the results of an earlier run of the comparison."""
    try:
        found = json.loads(storage.read_small(str(path), _MOST_BYTES) or b"")
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("name") == name and {"kind", "manifest", "rankings"} <= found.keys()


def _put_aside_in(folder: Path) -> Iterator[str]:
    """Renames all files that are called as those of results are; says which."""
    plots = [f"{name}.{ending}" for name in charts.FILES for ending in ("svg", "png")]
    for name in ("results.json", page.PAGE, *plots):
        if os.path.lexists(folder / name):
            kept = put_aside(folder / name)
            yield f"{folder / name} was not of this comparison; it is kept as {kept.name}"
