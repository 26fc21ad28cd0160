"""Draws the plots of a report, as SVG and as PNG, the same bytes for the same figures.

Matplotlib is imported by what draws: commands start without it.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

from pipelines.comparison.report import words
from pipelines.comparison.report.charts import Chart, LineChart, PartsChart
from pipelines.comparison.results import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

PALETTE = ("#0067a6", "#b84a00", "#00795a", "#9b2f6f", "#6b5a00", "#5a4fb0", "#4d4d4d")
"""Colours of ways on white, which can be told apart without seeing red or green; `page.css` has those on black."""
INK, FAINT, PAPER = "#1b1f24", "#d3d7dc", "#fefefe"
"""Colours of text, of the grid, and behind it."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
_WIDTH, _PLOT_HEIGHT, _LINE_HEIGHT = 4.6, 3.0, 0.21
_DOTS_PER_INCH = 200
_GAP = 0.014
"""Between the points of two lines, of the axis' length."""
_MOST_MARKS = 10
"""On a line; of a curve with more points some are marked."""
_MOST_TICKS = 6
"""Loads that have room for their numbers below the axis."""
_LEGEND_WIDTH, _ROW_WIDTH, _TITLE_WIDTH, _MOST_LINES = 44, 16, 44, 2
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "comparison",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "axes.unicode_minus": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


def draw(chart: Chart) -> tuple[str, bytes]:
    """Draws a plot; returns it as SVG and as PNG."""
    import matplotlib
    from matplotlib.figure import Figure as Drawing

    # Letters that the font lacks are boxes in the PNG, and themselves in the SVG.
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawing = Drawing(layout="constrained", facecolor=PAPER)
        if isinstance(chart, LineChart):
            _draw_lines(drawing, chart)
        else:
            _draw_parts(drawing, chart)
        svg, png = io.StringIO(), io.BytesIO()
        drawing.savefig(svg, format="svg", metadata=_NO_METADATA)
        # A page has the title of a plot above it; a PNG is seen without one.
        width, height = drawing.get_size_inches()
        title = _short(chart.title, _TITLE_WIDTH)
        drawing.set_size_inches(width, height + _LINE_HEIGHT * (title.count("\n") + 1.5))
        drawing.suptitle(title, fontsize=12, fontweight="bold")
        drawing.savefig(png, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return svg.getvalue(), png.getvalue()


def _color(style: int) -> str:
    return PALETTE[style % len(PALETTE)]


def _short(name: str, width: int, lines: int = _MOST_LINES) -> str:
    """A name on a few lines; what does not fit is cut."""
    return "\n".join(textwrap.wrap(words.printable(name), width, max_lines=lines, placeholder=" …")) or "?"


def _legend(drawing: Drawing, handles: list[Any], labels: list[str], plot_height: float) -> None:
    """Puts a legend below the plot, as high as it needs."""
    lines = sum(label.count("\n") + 1 for label in labels)
    drawing.set_size_inches(_WIDTH, plot_height + _LINE_HEIGHT * (lines + 0.5))
    # Matplotlib leaves out labels that begin with an underscore.
    shown = [f"\u200b{label}" if label.startswith("_") else label for label in labels]
    drawing.legend(handles, shown, loc="outside lower left", ncols=1, handlelength=3.2)


def _plain(axes: Axes, which: str) -> None:
    axes.grid(True, axis=which, color=FAINT, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _logarithmic(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axis.set_minor_formatter(NullFormatter())
    low, high = axis.get_view_interval()
    if high / low < 100:
        # Less than two powers of ten would leave an axis with one number.
        axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0), numticks=12))


def _tick(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.999:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _draw_lines(drawing: Drawing, chart: LineChart) -> None:
    axes = drawing.add_subplot()
    handles: list[Any] = []
    for index, line in enumerate(chart.lines):
        loads = [load for load, _ in line.points]
        values = [figure.median for _, figure in line.points]
        reaches = [[_reach(figure)[side] for _, figure in line.points] for side in (0, 1)]
        has_intervals = any(any(side) for side in reaches)
        marked = list(range(0, len(loads), -(-len(loads) // _MOST_MARKS)))
        style: dict[str, Any] = {"color": _color(line.style), "marker": _MARKERS[line.style % len(_MARKERS)]}
        moved = [load * _apart(chart, index) for load in loads] if has_intervals else loads
        handles.append(
            axes.errorbar(
                moved,
                values,
                yerr=reaches if has_intervals else None,
                **style,
                linestyle=_DASHES[line.style % len(_DASHES)],
                markersize=5,
                markevery=[each for each in marked if loads[each] not in line.hollow],
                linewidth=1.7,
                capsize=3,
                elinewidth=1.2,
            )
        )
        for each in marked:
            if loads[each] in line.hollow:
                axes.plot(moved[each], values[each], **style, markersize=6, markerfacecolor=PAPER, zorder=3)
    axes.set_xscale("log")
    axes.set_yscale("log")
    if chart.limits:
        axes.set_ylim(*chart.limits)
    labels = [_short(line.name, _LEGEND_WIDTH) for line in chart.lines]
    if chart.hollow:
        handles.append(_hollow())
        labels.append(_short(f"hollow: {chart.hollow}", _LEGEND_WIDTH))
    if chart.measured and (shade := _shaded(axes, chart)):
        handles.append(shade)
        labels.append("shaded: computed, beyond what was measured")
    for value, what in chart.marks:
        is_break_even = what.startswith("break-even")
        handles.append(axes.axvline(value, color=INK, linewidth=1.1, linestyle="--" if is_break_even else ":"))
        labels.append(_short(f"{_tick(float(f'{value:.3g}'))}: {what}", _LEGEND_WIDTH))
    axes.set_xlabel(f"{chart.across} (logarithmic)")
    axes.set_ylabel(f"{chart.up} (logarithmic)")
    _logarithmic(axes.xaxis)
    _logarithmic(axes.yaxis)
    loads = sorted({load for line in chart.lines for load, _ in line.points})
    gaps = [after / before for before, after in zip(loads, loads[1:], strict=False)]
    if len(loads) <= _MOST_TICKS and min(gaps, default=2) >= 2:
        axes.set_xticks(loads)
    _plain(axes, "both")
    _legend(drawing, handles, labels, _PLOT_HEIGHT)


def _hollow() -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=INK, marker="o", markersize=6, markerfacecolor=PAPER, linestyle="none")


def _shaded(axes: Axes, chart: LineChart) -> Any:
    """Shades what lies outside of the loads that were measured; returns what a legend shows, None if nothing does."""
    assert chart.measured is not None
    low, high = axes.get_xlim()
    least, most = chart.measured
    shades = [
        axes.axvspan(*ends, color=FAINT, alpha=0.55, linewidth=0, zorder=0)
        for ends in ((low, least), (most, high))
        if ends[0] < ends[1]
    ]
    axes.set_xlim(low, high)
    return shades[0] if shades else None


def _apart(chart: LineChart, index: int) -> float:
    """By how much the points of a line are moved, so that intervals at the same load can be told apart."""
    loads = [load for line in chart.lines for load, _ in line.points]
    return float((max(loads) / min(loads)) ** (_GAP * (index - (len(chart.lines) - 1) / 2)))


def _reach(figure: Figure) -> tuple[float, float]:
    if figure.low is None or figure.high is None:
        return 0.0, 0.0
    # An interval that ends below zero would leave a logarithmic axis.
    low = max(figure.low, figure.median / 1_000)
    return max(0.0, figure.median - low), max(0.0, figure.high - figure.median)


def _draw_parts(drawing: Drawing, chart: PartsChart) -> None:
    axes = drawing.add_subplot()
    labels = [_short(way, _ROW_WIDTH, 3) for way, _ in chart.rows]
    places = range(len(chart.rows))
    handles: dict[str, Any] = {}
    for place, (_, segments) in zip(places, chart.rows, strict=True):
        left = 0.0
        for index, each in enumerate(segments):
            if chart.is_stacked:
                handles[each.name] = axes.barh(
                    place, each.value, left=left, height=0.55, color=_color(each.style), edgecolor=PAPER, linewidth=0.8
                )
                left += each.value
            else:
                handles[each.name] = _stage(axes, place + (index - (len(segments) - 1) / 2) * 0.19, each)
    axes.set_yticks(list(places), labels)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    if chart.is_stacked:
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(chart.across)
    else:
        axes.set_xscale("log")
        _logarithmic(axes.xaxis)
        axes.set_xlabel(f"{chart.across} (logarithmic)")
    _plain(axes, "x")
    _legend(drawing, list(handles.values()), list(handles), 0.75 + 0.55 * len(labels))


def _stage(axes: Axes, height: float, each: Any) -> Any:
    (handle,) = axes.plot(
        [each.value, each.far or each.value],
        [height, height],
        color=_color(each.style),
        marker=_MARKERS[each.style],
        markevery=[0],
        markersize=5,
        linewidth=1.7,
        linestyle=_DASHES[each.style],
    )
    return handle
