"""Says what the plots of a report show: lines and points by way, without how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.comparison.demands import has_fallen_behind, measured_loads
from pipelines.comparison.report import words
from pipelines.comparison.report.cost_sentences import is_computed
from pipelines.comparison.report.data_table import DataTable, Heading, RowGroup, TableValue, text
from pipelines.comparison.report.speed_tables import STAGES
from pipelines.comparison.report.subject import subject_of
from pipelines.comparison.results import CostOfWay, Figure, Results

_MOST_REACH = 4
"""Times by which an axis goes beyond the medians for the sake of intervals."""
_MOST_ROWS = 16
"""Of the table of a plot; of a curve with more points it has some."""
STATED = "stated volume"
"""What the volume is that somebody stated."""
_PARTS = {"start": ("start_s", 0), "work": ("work_s", 1), "end": ("end_s", 6)}
"""Figures of the parts of a run, and their styles."""


@dataclass(frozen=True)
class ChartLine:
    """Holds the line of a way.

    Attributes:
      name: of the way.
      style: number of its colour, mark and dashes: the same in all plots.
      points: load or volume, and the figure there, ascending.
      hollow: of these, those whose marks are hollow.
    """

    name: str
    style: int
    points: tuple[tuple[float, Figure], ...]
    hollow: frozenset[float] = frozenset()


@dataclass(frozen=True)
class LineChart:
    """Describes a plot of lines; both axes are logarithmic.

    Attributes:
      file: name of its files, without the ending.
      title: what it shows.
      across: heading of the horizontal axis.
      up: heading of the vertical axis.
      lines: of the ways.
      limits: where the vertical axis begins and ends; None if that follows from the figures.
      marks: values of the horizontal axis that are marked, with what they are.
      note: what a reader should know.
      hollow: what it means that a mark is hollow.
      measured: the least and the greatest load that were measured, if the plot goes beyond; that is shaded.
    """

    file: str
    title: str
    across: str
    up: str
    lines: tuple[ChartLine, ...]
    limits: tuple[float, float] | None = None
    marks: tuple[tuple[float, str], ...] = ()
    note: str = ""
    hollow: str = ""
    measured: tuple[float, float] | None = None

    @property
    def description(self) -> str:
        """Returns what the plot shows, for those who do not see it."""
        parts = [_course(line) for line in self.lines]
        parts += [
            f"{line.name} at {words.listed([words.count(each) for each in sorted(line.hollow)])}: {self.hollow}"
            for line in self.lines
            if line.hollow and not self.measured
        ]
        if self.measured:
            low, high = (words.count(each) for each in self.measured)
            parts.append(f"measured from {low} to {high}, computed outside of these")
        parts += [f"{words.count(value)}: {what}" for value, what in self.marks]
        return f"{self.up} against {self.across}, both axes logarithmic. {'; '.join(parts)}."

    @property
    def table(self) -> DataTable:
        """Returns what is plotted."""
        loads = sorted({load for line in self.lines for load, _ in line.points})
        if len(loads) > _MOST_ROWS:
            step = -(-len(loads) // _MOST_ROWS)
            kept = {*loads[::step], loads[-1], *(value for value, _ in self.marks)}
            loads = [load for load in loads if load in kept]
        rows = tuple(
            (TableValue(words.count(load)), *(self._value(line, load) for line in self.lines)) for load in loads
        )
        titles = (Heading(self.across), *(Heading(line.name) for line in self.lines))
        return DataTable(f"{self.title}: {self.up}", titles, (RowGroup("", rows),))

    def _value(self, line: ChartLine, load: float) -> TableValue:
        value = _value(dict(line.points).get(load))
        details = (value.detail, self.hollow if load in line.hollow else "")
        return value._replace(detail="; ".join(filter(None, details)))


@dataclass(frozen=True)
class Segment:
    """Holds a part of a bar, or a stage of a message.

    Attributes:
      name: of it.
      style: number of its colour.
      value: its length; of a stage its median.
      far: of a stage, its p99.
    """

    name: str
    style: int
    value: float
    far: float | None = None


@dataclass(frozen=True)
class PartsChart:
    """Describes a plot of where time goes: a row for each way.

    Attributes:
      file: name of its files, without the ending.
      title: what it shows.
      across: heading of the horizontal axis.
      rows: of each way the parts of its time.
      is_stacked: whether the parts follow each other in a bar from zero; else each is a point on a logarithmic axis.
      note: what a reader should know.
    """

    file: str
    title: str
    across: str
    rows: tuple[tuple[str, tuple[Segment, ...]], ...]
    is_stacked: bool
    note: str = ""

    @property
    def description(self) -> str:
        """Returns what the plot shows, for those who do not see it."""
        axis = "bars from zero" if self.is_stacked else "logarithmic axis"
        parts = [
            f"{way}: {', '.join(f'{each.name} {words.number(each.value)}' for each in segments)}"
            for way, segments in self.rows
        ]
        return f"{self.across}, {axis}. {'; '.join(parts)}."

    @property
    def table(self) -> DataTable:
        """Returns what is plotted."""
        names = list(dict.fromkeys(each.name for _, segments in self.rows for each in segments))
        rows = []
        for way, segments in self.rows:
            found = {each.name: each for each in segments}
            rows.append((text(way), *(_segment(found.get(name)) for name in names)))
        titles = (Heading("way", number=False), *(Heading(name) for name in names))
        return DataTable(f"{self.title}: {self.across}", titles, (RowGroup("", tuple(rows)),))


Chart = LineChart | PartsChart


def _course(line: ChartLine) -> str:
    (first, low), (last, high) = line.points[0], line.points[-1]
    start = f"{line.name}: {words.number(low.median)} at {words.count(first)}"
    return start if first == last else f"{start}, {words.number(high.median)} at {words.count(last)}"


def _value(found: Figure | None) -> TableValue:
    return (
        text("")
        if found is None
        else TableValue(words.number(found.median, most=words.DECIMALS), words.interval(found))
    )


def _segment(found: Segment | None) -> TableValue:
    if found is None:
        return text("")
    return TableValue(words.number(found.value), "" if found.far is None else f"p99 {words.number(found.far)}")


def charts(results: Results) -> list[Chart]:
    """Returns the plots of speed, those with nothing to show left out."""
    subject = subject_of(results)
    if results.kind == "batch":
        found: list[LineChart] = [
            _lines(results, "time-against-size", "Time against size", "elapsed_s", "elapsed seconds"),
            _lines(results, "throughput-against-size", "Throughput against size", "rows_per_second", "rows a second"),
        ]
    else:
        found = [
            _lines(
                results,
                "latency-against-rate",
                f"Latency against rate: {subject.statistic}",
                subject.figure,
                subject.short,
            ),
            _lines(
                results, "latency-median-against-rate", "Latency against rate: median", "latency.total.p50", "p50, ms"
            ),
        ]
    return [each for each in found if each.lines]


def _lines(results: Results, file: str, title: str, name: str, up: str) -> LineChart:
    across = "rows" if results.kind == "batch" else "messages a second"
    lines = []
    for style, way in enumerate(results.ways):
        cells = ((load, results.cell(way.name, load)) for load in results.loads)
        points = [(load, cell.figures[name]) for load, cell in cells if cell and name in cell.figures]
        # What is zero has no place on a logarithmic axis.
        points = [(load, figure) for load, figure in points if load > 0 and figure.median > 0]
        if points:
            hollow = frozenset(load for load, _ in points if _unranked(results, way.name, load))
            lines.append(ChartLine(way.name, style, tuple(points), hollow))
    unranked = sorted({way for each in results.rankings for way in each.not_ranked})
    notes = [f"Not ranked everywhere: {words.listed(unranked)}; see the places above."] if unranked else []
    limits = _limits(lines)
    if limits:
        notes.append("Some intervals go on outside of the plot; its table has their ends.")
    unranked_points = [(line.name, load) for line in lines for load in line.hollow]
    why = (
        "did not keep up" if all(has_fallen_behind(results, *each) for each in unranked_points) else "not ranked there"
    )
    return LineChart(
        file, title, across, up, tuple(lines), limits, note=" ".join(notes), hollow=why if unranked_points else ""
    )


def _unranked(results: Results, way: str, load: float) -> bool:
    return any(each.load == load and way in each.not_ranked for each in results.rankings)


def _limits(lines: Sequence[ChartLine]) -> tuple[float, float] | None:
    """Where an axis is to end so that wide intervals do not flatten all lines; None if they do not."""
    figures = [figure for line in lines for _, figure in line.points]
    if not figures:
        return None
    low, high = min(each.median for each in figures) / _MOST_REACH, max(each.median for each in figures) * _MOST_REACH
    reach_low = min(each.median if each.low is None else each.low for each in figures)
    reach_high = max(each.median if each.high is None else each.high for each in figures)
    return (low, high) if reach_low < low or reach_high > high else None


def parts_charts(results: Results) -> list[Chart]:
    """Returns the plots of where time goes, at the least and at the greatest load that was measured."""
    measured = [each for each in results.loads if any(c.load == each and c.figures for c in results.cells)]
    ends = list(dict.fromkeys([*measured[:1], *measured[-1:]]))
    names = ("where-time-goes-small", "where-time-goes-large")
    found = [_parts(results, load, name) for load, name in zip(ends, names, strict=False)]
    return [each for each in found if each.rows]


def _parts(results: Results, load: float, file: str) -> PartsChart:
    at = subject_of(results).at(load)
    rows = []
    is_batch = results.kind == "batch"
    for way in results.ways:
        cell = results.cell(way.name, load)
        segments = _seconds(cell.figures) if cell and is_batch else _latencies(cell.figures) if cell else []
        if segments:
            rows.append((way.name, tuple(segments)))
    note = "Medians of each part." if is_batch else "A point is the median, its line reaches to p99."
    across = "seconds" if is_batch else "milliseconds"
    return PartsChart(file, f"Where time goes at {at}", across, tuple(rows), is_batch, note)


def _seconds(figures: dict[str, Figure]) -> list[Segment]:
    return [Segment(part, style, figures[name].median) for part, (name, style) in _PARTS.items() if name in figures]


def _latencies(figures: dict[str, Figure]) -> list[Segment]:
    found = []
    for style, (stage, in_words) in enumerate(STAGES["stream"].items()):
        median, far = (figures.get(f"latency.{stage}.{name}") for name in ("p50", "p99"))
        if median and median.median > 0:
            found.append(Segment(in_words, style, median.median, max(far.median, median.median) if far else None))
    return found


def cost_chart(results: Results) -> LineChart | None:
    """Returns the plot of cost against volume, the break-evens marked; None if no way has a curve."""
    costs = results.costs
    if costs is None:
        return None
    styles = {way.name: style for style, way in enumerate(results.ways)}
    lines = []
    for way in costs.ways:
        points = [(volume, Figure(median=cost)) for volume, cost in way.curve if volume > 0 and cost > 0]
        if points:
            hollow = frozenset(volume for volume, _ in points if is_computed(results, way.way, volume))
            lines.append(ChartLine(way.way, styles.get(way.way, len(styles)), tuple(points), hollow))
    if not lines:
        return None
    marks = [(each.volume, f"break-even, above it {each.above}") for each in costs.break_evens if each.volume > 0]
    if costs.volume > 0:
        marks.append((costs.volume, STATED if costs.stated else "the largest load"))
    loads = [each for each in measured_loads(results) if each > 0]
    return LineChart(
        "cost-against-volume",
        "Cost against volume",
        costs.unit,
        f"{costs.currency} a month",
        tuple(lines),
        marks=tuple(sorted(marks)),
        note=_missing(costs.ways),
        hollow="beyond what was measured of this way" if any(each.hollow for each in lines) else "",
        measured=(loads[0], loads[-1]) if loads else None,
    )


def _missing(ways: Sequence[CostOfWay]) -> str:
    names = [way.way for way in ways if way.missing]
    return f"Prices are missing, and left out of: {words.listed(names)}." if names else ""


FILES = (
    "time-against-size",
    "throughput-against-size",
    "latency-against-rate",
    "latency-median-against-rate",
    "where-time-goes-small",
    "where-time-goes-large",
    "cost-against-volume",
)
"""Names of all plots that a report may have, without the ending."""
