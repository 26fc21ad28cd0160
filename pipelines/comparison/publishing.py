"""Writes what a comparison has found: results.json, report.html, plots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines import storage
from pipelines.comparison.costs import costs_of
from pipelines.comparison.report import page
from pipelines.comparison.results import Results
from pipelines.config.comparison import ComparisonConfig
from pipelines.cost.assumptions import Assumptions
from pipelines.cost.prices import load as load_prices


@dataclass(frozen=True)
class Published:
    """Says where the results are.

    Attributes:
      results: the results, with their costs.
      json: path of results.json.
      report: path of report.html.
    """

    results: Results
    json: str
    report: str


def publish(results: Results, config: ComparisonConfig, folder: Path) -> Published:
    """Prices results, and writes them and their report.

    Args:
      results: without costs.
      config: of the comparison.
      folder: where to.
    """
    prices = load_prices(config.prices)
    results = results.model_copy(update={"costs": costs_of(results, prices, Assumptions(volume=config.volume))})
    path = folder / "results.json"
    storage.write_whole(str(path), (results.model_dump_json(indent=1) + "\n").encode())
    return Published(results, str(path), page.write(results, str(folder)))
