"""Puts drawn plots into the page: in its colours, and with words for those who do not see them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

from pipelines.comparison.report import words
from pipelines.comparison.report.charts import Chart
from pipelines.comparison.report.data_table import DataTable
from pipelines.comparison.report.drawing import FAINT, INK, PALETTE, PAPER, draw

_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--grid)",
    PAPER: "var(--paper)",
    **{color: f"var(--way-{index})" for index, color in enumerate(PALETTE)},
}


@dataclass(frozen=True)
class Plot:
    """Holds a drawn plot.

    Attributes:
      chart: what it shows.
      table: the same as a table.
      svg: as a file.
      png: as a file.
      inline: as a part of the page.
    """

    chart: Chart
    table: DataTable
    svg: str
    png: bytes
    inline: str


def plot(chart: Chart) -> Plot:
    """Draws a plot for the page and for files of its own."""
    svg, png = draw(chart)
    title, description = (escape(words.printable(each)) for each in (chart.title, chart.description))
    named = f'role="img" aria-label="{title}"'
    told = f'<title id="{chart.file}-title">{title}</title><desc id="{chart.file}-desc">{description}</desc>'
    described = f'{named} aria-describedby="{chart.file}-desc"'
    file = re.sub(r"<svg ([^>]*)>", lambda found: f"<svg {found[1]} {named}>{told}", svg, count=1)
    return Plot(chart, chart.table, file, png, _inline(svg, chart.file, described, told))


def _inline(svg: str, name: str, described: str, told: str) -> str:
    body = svg[svg.index("<svg ") :]
    body = re.sub(r"<style.*?</style>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", body, count=2)
    # The names in a page of several drawings must differ.
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    # Only in styles: a name of a way may look like a colour.
    body = re.sub(r'style="[^"<>]*"', _with_variables, body)
    return re.sub(r"<svg ([^>]*)>", lambda found: f"<svg {found[1]} {described}>{told}", body, count=1)


def _with_variables(found: re.Match[str]) -> str:
    style = found[0].replace("font-family: 'DejaVu Sans', sans-serif", "font-family: inherit")
    return re.sub(r"#[0-9a-f]{6}", lambda color: _VARIABLES.get(color[0], color[0]), style)
