"""Writes `report.html`: one file that needs no network and no scripts, with its plots also beside it."""

from __future__ import annotations

import os
from importlib import resources
from typing import Any

from pipelines.comparison.report import (
    article,
    article_tables,
    charts,
    cost_tables,
    evidence_tables,
    speed_tables,
    words,
)
from pipelines.comparison.report.answer import answer
from pipelines.comparison.report.inlined import Plot, plot
from pipelines.comparison.report.subject import subject_of
from pipelines.comparison.results import Results

PAGE = "report.html"
_TEMPLATE = "page.html.j2"


def write(results: Results, folder: str) -> str:
    """Writes the report of a comparison; what is there already is replaced, each file at once.

    Args:
      results: what the comparison has found.
      folder: a local folder; it is made if it is not there.

    Returns:
      The path of the page. Beside it are the plots, as SVG and PNG.
    """
    os.makedirs(folder, exist_ok=True)
    speed = [plot(each) for each in charts.charts(results)]
    parts = [plot(each) for each in charts.parts_charts(results)]
    cost_chart = charts.cost_chart(results)
    cost = plot(cost_chart) if cost_chart else None
    drawn = [*speed, *parts, *([cost] if cost else [])]
    for each in drawn:
        _replace(os.path.join(folder, f"{each.chart.file}.svg"), each.svg.encode())
        _replace(os.path.join(folder, f"{each.chart.file}.png"), each.png)
    page = os.path.join(folder, PAGE)
    _replace(page, rendered(results, speed, parts, cost).encode())
    _remove_others(folder, {each.chart.file for each in drawn})
    return page


def rendered(results: Results, speed: list[Plot], parts: list[Plot], cost: Plot | None) -> str:
    """Returns the page.

    Args:
      results: what the comparison has found.
      speed: plots of time or latency.
      parts: plots of where time goes.
      cost: the plot of cost against volume, if there is one.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_packaged),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sentence"] = lambda text: words.full_stop(words.upper_first(text))
    return environment.get_template(_TEMPLATE).render(
        results=results,
        subject=subject_of(results),
        article=article,
        found=answer(results),
        when=words.when(results.manifest.begun, results.manifest.ended),
        speed=speed,
        parts=parts,
        cost=cost,
        tables=_tables(results),
    )


def _tables(results: Results) -> dict[str, Any]:
    costs = results.costs
    article_ours, article_other = (article_tables.batch, article_tables.stream)
    if results.kind == "stream":
        article_ours, article_other = article_other, article_ours
    return {
        "ranking": speed_tables.ranking(results) if results.rankings else None,
        "ways": speed_tables.ways(results),
        "elapsed": speed_tables.elapsed(results),
        "steps": speed_tables.steps(results),
        "latency": speed_tables.latency(results),
        "stages": speed_tables.stages(results),
        "processors": speed_tables.processors(results),
        "rows": speed_tables.rows(results),
        "article_ours": article_ours(results),
        "article_other": article_other(results),
        "parity": evidence_tables.parity(results),
        "outputs": evidence_tables.outputs(results),
        "differing_rows": evidence_tables.differing_rows(results),
        "left_out": evidence_tables.left_out(results),
        "failures": evidence_tables.failures(results),
        "outliers": evidence_tables.outliers(results),
        "runs": evidence_tables.runs(results),
        "manifest": evidence_tables.manifest(results),
        "month": cost_tables.month(results, costs) if costs else None,
        "run_costs": cost_tables.runs(results, costs) if costs else None,
        "break_evens": cost_tables.break_evens(results, costs) if costs else None,
        "prices": cost_tables.prices(costs) if costs else None,
    }


def _packaged(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _replace(path: str, content: bytes) -> None:
    part = f"{path}.part"
    try:
        with open(part, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise


def _remove_others(folder: str, kept: set[str]) -> None:
    """Removes plots that an earlier report had, and this one has not."""
    for name in set(charts.FILES) - kept:
        for ending in ("svg", "png"):
            path = os.path.join(folder, f"{name}.{ending}")
            if os.path.exists(path):
                os.remove(path)
