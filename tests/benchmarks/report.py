"""The results as one table, as JSON and as markdown."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.cold_start import Start
from tests.benchmarks.contest import CONTESTANTS, ContestError, Result

BASELINES = [
    ("bare", 0.8),
    ("stock", 20.0),
    ("ray_data", 8.0),
    ("spark", 8.0),
    ("ray_data_first", 8.0),
    ("spark_first", 8.0),
]
"""What this project is compared with, and how many times its rate it should reach."""

GROWTH_TIME, GROWTH_MEMORY = 5.5, 1.5
MARKS = ("<!-- results -->", "<!-- end of results -->")
HEADER = ("measured", "rows", "seconds", "rows/s", "peak MB", "compared with", "ratio", "target", "met")


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
      name: what was measured.
      rows: rows of the file.
      seconds: median of the runs.
      rows_per_second: of the median.
      peak_mb: median of the peak resident memory.
      baseline: what the ratio divides by.
      ratio: this line's value by the baseline's.
      target: limit of the ratio, or of the seconds where there is no ratio.
      met: whether the target is met.
    """

    name: str
    rows: int | None = None
    seconds: float | None = None
    rows_per_second: float | None = None
    peak_mb: float | None = None
    baseline: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """What the table shows."""
        return (
            self.name,
            "" if self.rows is None else f"{self.rows:,}",
            "" if self.seconds is None else f"{self.seconds:.2f}",
            "" if self.rows_per_second is None else f"{self.rows_per_second:,.0f}",
            "" if self.peak_mb is None else f"{self.peak_mb:,.0f}",
            self.baseline,
            "" if self.ratio is None else f"{self.ratio:.2f}",
            self.target,
            "" if self.met is None else "yes" if self.met else "NO",
        )


def throughput(results: Sequence[Result], rows: int) -> list[Line]:
    """One line for each contestant, then this project against each baseline, by rows per second."""
    by_name = {r.entry.name: r for r in results if r.entry.name != "ours" or r.entry.rows == rows}
    lines = [
        Line(
            CONTESTANTS[name][0], r.entry.rows, r.median_seconds, r.rows_per_second, r.median_peak_mb
        )
        for name, r in by_name.items()
    ]  # fmt: skip
    ours = by_name.get("ours")
    stock = [by_name[name] for name in ("stock", "stock_default") if name in by_name]
    if stock:
        by_name["stock"] = max(stock, key=lambda r: r.rows_per_second)
    for name, target in BASELINES:
        if ours and name in by_name:
            baseline = by_name[name]
            ratio = ours.rows_per_second / baseline.rows_per_second
            label = CONTESTANTS[baseline.entry.name][0]
            if baseline.entry.rows != ours.entry.rows:
                label += f" on {baseline.entry.rows:,} rows"
            lines.append(
                Line(
                    "this project, rows/s",
                    baseline=label,
                    ratio=ratio,
                    target=f">= {target:g}",
                    met=ratio >= target,
                )
            )
    return lines


def growth(results: Sequence[Result], sizes: tuple[int, int] | None) -> list[Line]:
    """How time and memory of this project grow with the number of rows."""
    if sizes is None:
        return []
    small, large = (next(r for r in results if r.entry.name == "ours" and r.entry.rows == n) for n in sizes)
    time = large.median_seconds / small.median_seconds
    memory = large.median_peak_mb / small.median_peak_mb
    label = f"{sizes[0]:,} rows"
    grown = Line(
        f"this project on {sizes[1]:,} rows",
        sizes[1],
        large.median_seconds,
        large.rows_per_second,
        large.median_peak_mb,
    )
    return [
        grown,
        Line("growth: time", baseline=label, ratio=time, target=f"<= {GROWTH_TIME:g}", met=time <= GROWTH_TIME),
        Line(
            "growth: peak memory",
            baseline=label,
            ratio=memory,
            target=f"<= {GROWTH_MEMORY:g}",
            met=memory <= GROWTH_MEMORY,
        ),
    ]


def starts(found: Sequence[Start]) -> list[Line]:
    """The cold starts, against their limits in seconds."""
    return [
        Line(
            f"cold start: {start.name}",
            seconds=start.median_seconds,
            target="" if start.limit is None else f"<= {start.limit:g} s",
            met=None if start.limit is None else start.median_seconds <= start.limit,
        )
        for start in found
    ]


def machine() -> dict[str, str | int]:
    """What the numbers depend on."""
    packages = ("apache-beam", "tensorflow", "pyarrow", "polars", "numpy")
    return {
        "cores": os.cpu_count() or 0,
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def write_json(path: Path, results: Sequence[Result], found: Sequence[Start], lines: Sequence[Line]) -> None:
    """Every run, and the table."""
    content = {
        "machine": machine(),
        "runs": [
            {
                "contestant": result.entry.name,
                "rows": result.entry.rows,
                "seconds": [round(s, 3) for s in result.seconds],
                "peak_rss_mb": [round(m, 1) for m in result.peak_rss_mb],
            }
            for result in results
        ],
        "cold_start": [asdict(start) for start in found],
        "table": [asdict(line) for line in lines],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def print_table(lines: Sequence[Line]) -> None:
    """The table, for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    table = Table(title=f"batch, {os.cpu_count()} cores, medians; imports are not timed", title_justify="left")
    for i, name in enumerate(HEADER):
        table.add_column(name, justify="left" if i in (0, 5) else "right", overflow="fold")
    for line in lines:
        style = {True: "green", False: "red", None: ""}[line.met]
        table.add_row(*line.cells(), style=style)
    console.print(table)


def check_target(target: str | None) -> None:
    """Whether `write_markdown` will find its place. Raises ContestError."""
    if target not in (None, "-"):
        _around_marks(Path(target))


def write_markdown(lines: Sequence[Line], target: str) -> None:
    """The table as markdown, printed ("-") or put between the marks of a file. Raises ContestError."""
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    rows = [HEADER, ("---",) * len(HEADER), *(line.cells() for line in lines)]
    text = f"{facts}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows)
    if target == "-":
        print(text)
    else:
        before, after = _around_marks(Path(target))
        Path(target).write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


def _around_marks(path: Path) -> tuple[str, str]:
    text = path.read_text() if path.exists() else ""
    before, begin, rest = text.partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not begin or not end:
        raise ContestError(f"{path} has no {MARKS[0]} ... {MARKS[1]} to put the results between")
    return before, after
