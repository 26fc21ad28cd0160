"""Makes the tables of what was measured of each way at each load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.comparison.report import words
from pipelines.comparison.report.cautions import FEWEST_MESSAGES, few_messages
from pipelines.comparison.report.data_table import (
    DataTable,
    RowGroup,
    TableValue,
    amount,
    figure,
    headings,
    text,
    words_table,
)
from pipelines.comparison.report.subject import subject_of
from pipelines.comparison.results import Figure, RankedPlace, Results

STAGES = {
    "batch": {"read": "reading", "model": "in the model", "write": "writing"},
    "stream": {"lag": "before it was read", "wait": "waiting for a batch", "model": "in the model", "total": "total"},
}
"""Stages of a message, in words."""
WHERE = {
    "direct": "in the pipeline's processes",
    "endpoint": "behind a server",
    "batch_job": "in a batch prediction job",
}
"""Kinds of ways, in words."""
_INTERVALS = "Medians of the rounds, with 95% intervals."


@dataclass(frozen=True)
class _Column:
    """A column: its heading, a figure's name, how that is shown."""

    heading: str
    name: str
    shown: Callable[[Figure | None], TableValue] = figure


def ways(results: Results) -> DataTable:
    """Returns the ways and their settings."""
    rows = [
        (each.name, WHERE[each.kind], "one record" if each.single else "many records", "; ".join(each.settings))
        for each in results.ways
    ]
    return words_table("The ways, and how they were set", ("way", "the model runs", "a call has", "settings"), rows)


def ranking(results: Results) -> DataTable:
    """Returns the places of the ways at each load; those that are not ranked say why."""
    subject = subject_of(results)
    groups = []
    for each in results.rankings:
        rows: list[tuple[TableValue, ...]] = [
            (
                text(place.way),
                TableValue(str(place.place), "tied" if place.tied else ""),
                _value(results, place, each.load, each.figure),
                TableValue(words.times(place.ratio)),
            )
            for place in each.places
        ]
        rows += [
            (text(way), TableValue(words.full_stop(f"not ranked: {why}"), span=3))
            for way, why in each.not_ranked.items()
        ]
        groups.append(RowGroup(subject.at(each.load), tuple(rows)))
    return DataTable(
        f"Places by {subject.measure}, in {'seconds' if subject.unit == 's' else 'milliseconds'}",
        headings("way", "place", f"median, {subject.unit}, 95% interval", "times the best"),
        tuple(groups),
        "Ways whose intervals overlap with that of the best of a group share its place: a tie.",
    )


def _value(results: Results, place: RankedPlace, load: float, name: str) -> TableValue:
    cell = results.cell(place.way, load)
    found = cell.figures.get(name) if cell else None
    if found is None:
        return TableValue(words.number(place.value))
    value = figure(found)
    return value._replace(detail="; ".join(filter(None, (value.detail, few_messages(cell)))))


def _measured(results: Results, caption: str, columns: Sequence[_Column], note: str = _INTERVALS) -> DataTable | None:
    """A row for each way at each load that has any of the figures; None if no row is left."""
    groups = []
    for load in results.loads:
        rows = []
        for way in results.ways:
            cell = results.cell(way.name, load)
            if cell and any(each.name in cell.figures for each in columns):
                values = (each.shown(cell.figures.get(each.name)) for each in columns)
                rows.append((text(way.name), *values))
        if rows:
            groups.append(RowGroup(subject_of(results).at(load), tuple(rows)))
    titles = headings("way", *(each.heading for each in columns))
    return DataTable(caption, titles, tuple(groups), note) if groups else None


def _megabytes(value: Figure | None) -> TableValue:
    return TableValue(words.NONE if value is None else words.megabytes(value.median))


def _rate(value: Figure | None) -> TableValue:
    return TableValue(words.NONE if value is None else words.count(round(value.median)), _whole(value))


def _whole(value: Figure | None) -> str:
    if value is None or value.low is None or value.high is None:
        return ""
    return f"{value.low:,.0f} to {value.high:,.0f}"


def elapsed(results: Results) -> DataTable | None:
    """Returns the elapsed times and their parts."""
    columns = [
        _Column("elapsed", "elapsed_s"),
        _Column("start", "start_s"),
        _Column("work", "work_s"),
        _Column("end", "end_s"),
    ]
    if results.kind == "batch":
        columns.append(_Column("rows a second", "rows_per_second", _rate))
    note = (
        f"{_INTERVALS} Start is before the first row: imports, checks, construction; work is while rows were on their "
        "way; end is after the last row. Medians of parts need not add up to the median of the whole."
    )
    return _measured(results, "Elapsed time and its parts, in seconds", columns, note)


def steps(results: Results) -> DataTable | None:
    """Returns the steps of batch prediction jobs; None if there are none."""
    columns = [_Column(each, f"steps.{each}") for each in ("prepare", "submit", "wait", "join")]
    return _measured(results, "Steps of the batch prediction job, in seconds", columns)


def latency(results: Results) -> DataTable | None:
    """Returns the latencies of whole messages; None if there are none."""
    columns = [
        _Column(heading, f"latency.total.{name}")
        for heading, name in (("p50", "p50"), ("p95", "p95"), ("p99", "p99"), ("greatest", "max"))
    ]
    note = f"{_INTERVALS} p99 is the latency that 99% of the messages stay below."
    if any(few_messages(each) for each in results.cells):
        note += f" Where a run has fewer than {FEWEST_MESSAGES} messages, it is nearly the greatest."
    return _measured(results, "Latency of a message, in milliseconds", columns, note)


def stages(results: Results) -> DataTable | None:
    """Returns the latencies by stage; None if there are none."""
    columns = [
        _Column(f"{words_of}, {name}", f"latency.{stage}.{name}")
        for stage, words_of in STAGES[results.kind].items()
        if stage != "total"
        for name in ("p50", "p99")
    ]
    note = _INTERVALS
    if results.kind == "batch":
        note += (
            " A stage takes as long for a row as for all that are worked on together: 8 MiB of a large file, "
            "and of a model on a server all requests for them."
        )
    return _measured(results, "Latency by stage, in milliseconds", columns, note)


def processors(results: Results) -> DataTable | None:
    """Returns seconds of processors and memory, of the pipeline and of the server apart."""
    columns = [
        _Column("CPU s, pipeline", "pipeline_cpu_s"),
        _Column("CPU s, server", "server_cpu_s"),
        _Column("CPU s, together", "cpu_s"),
        _Column("peak MB, pipeline", "pipeline_peak_mb"),
        _Column("peak MB, server", "server_peak_mb"),
    ]
    note = f"{_INTERVALS} A dash: no server of this machine took part. A server's peak is since it started."
    return _measured(results, "Seconds of processors, and the most memory", columns, note)


def rows(results: Results) -> DataTable | None:
    """Returns rows, requests and bytes."""
    noun = "rows" if results.kind == "batch" else "messages"
    columns = [
        _Column(f"{noun} read", "rows_read", amount),
        _Column("predicted", "rows_written", amount),
        _Column("dead-lettered", "rows_dead_lettered", amount),
        _Column("requests", "requests", amount),
        _Column("of these repeated", "requests_repeated", amount),
        _Column("MB sent", "bytes_sent", _megabytes),
    ]
    return _measured(results, f"{noun.capitalize()}, requests and bytes, of one run", columns, "Medians of the rounds.")
