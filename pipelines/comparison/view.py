"""Shows a comparison on the console: what begins, and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.comparison.amounts import written
from pipelines.comparison.parity import in_words
from pipelines.comparison.report import words
from pipelines.comparison.report.answer import answer
from pipelines.comparison.report.cautions import few_messages
from pipelines.comparison.results import Cell, Figure, Ranking, Results

if TYPE_CHECKING:
    from pipelines.comparison.publishing import Published
    from pipelines.comparison.session import ComparisonSession


def start(session: ComparisonSession) -> str:
    """Says what is going to be compared."""
    config = session.config
    loads = ", ".join(written(load) for load in session.loads)
    what = f"{loads} rows" if session.kind == "batch" else f"{loads} messages a second"
    ways = "1 way" if len(session.ways) == 1 else f"{len(session.ways)} ways"
    return f"{config.name}: {ways} over {what}; at most {config.minutes:g} minutes of runs"


def show(console: Any, published: Published) -> None:
    """Prints the answer and where the report is."""
    results = published.results
    for found in results.parity:
        if not found.agrees:
            console.print(f"not ranked: {found.way}: {in_words(found)}", highlight=False, soft_wrap=True)
    for ranking in results.rankings:
        _show_ranking(console, results, ranking)
    _show_answer(console, results)
    console.print(f"results: {published.json}", highlight=False, soft_wrap=True)
    console.print(f"report:  {published.report}", highlight=False, soft_wrap=True)


def _show_answer(console: Any, results: Results) -> None:
    """Prints what the report says first: which way is the fastest, what is the cheapest, what one must know of it."""
    found = answer(results)
    for sentence in (found.headline, found.costs, *(f"- {each}" for each in found.warnings)):
        if sentence:
            console.print(sentence, highlight=False, soft_wrap=True)


def _show_ranking(console: Any, results: Results, ranking: Ranking) -> None:
    unit = "rows" if results.kind == "batch" else "messages a second"
    rows = []
    for place in ranking.places:
        cell = results.cell(place.way, ranking.load)
        tied = " (tied)" if place.tied else ""
        rows.append((f"{place.place}{tied}", place.way, _value(results, cell, ranking.figure), f"{place.ratio:.2f}"))
    rows += [("-", way, f"not ranked: {why}", "") for way, why in ranking.not_ranked.items()]
    title = f"{written(ranking.load)} {unit}, by {'time' if results.kind == 'batch' else 'latency (p99)'}"
    if not console.is_terminal:
        console.print(title, highlight=False)
        for at, way, value, ratio in rows:
            console.print(f"  {at:<9} {way:<34} {value}{f', {ratio} times' if ratio else ''}", highlight=False)
        return
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name, justify in (("place", "left"), ("way", "left"), ("median (95% interval)", "left"), ("times", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _value(results: Results, cell: Cell | None, name: str) -> str:
    if cell is None or name not in cell.figures:
        return ""
    unit = "s" if results.kind == "batch" else "ms"
    return " ".join(filter(None, (with_interval(cell.figures[name], unit), few_messages(cell))))


def with_interval(figure: Figure, unit: str) -> str:
    """Writes a figure with its interval, such as `2.31 s (2.20 to 2.40, 3 rounds)`."""
    text = f"{words.number(figure.median)} {unit}"
    rounds = "one round" if figure.rounds == 1 else f"{figure.rounds} rounds"
    if figure.low is None or figure.high is None:
        return f"{text} ({rounds})"
    return f"{text} ({words.interval(figure)}, {rounds})"
