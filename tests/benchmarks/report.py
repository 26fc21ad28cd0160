"""The results as one table, as JSON and as markdown."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

from tests.benchmarks.cold_start import Start
from tests.benchmarks.contest import CONTESTANTS, ContestError, Result

BASELINES = [
    ("bare_native", 0.8),
    ("bare", 1.5),
    ("stock", 20.0),
    ("ray_data", 5.5),
    ("spark", 4.5),
    ("ray_data_first", 8.0),
    ("spark_first", 8.0),
]
"""What this project is compared with, and how many times its rate it should reach."""

GROWTH_TIME, GROWTH_MEMORY = 5.5, 1.5
HEADER = ("measured", "rows", "seconds", "rows/s", "peak MB", "compared with", "ratio", "target", "met")
_TEXTS = ("measured", "compared with")


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


@dataclass(frozen=True)
class Table:
    """One table of a report.

    Attributes:
      title: for people.
      rows: its cells.
      header: names of the columns.
      met: for each row whether its target is met; None where there is none.
      section: names the marks of its place in a file.
    """

    title: str
    rows: Sequence[tuple[str, ...]]
    header: tuple[str, ...] = HEADER
    met: Sequence[bool | None] = field(default_factory=list)
    section: str = ""

    @property
    def marks(self) -> tuple[str, str]:
        """What stands before and behind it in a file."""
        name = f"results: {self.section}" if self.section else "results"
        return f"<!-- {name} -->", f"<!-- end of {name} -->"


def table(title: str, lines: Sequence[Line], section: str = "") -> Table:
    """Lines as a table."""
    return Table(title, [line.cells() for line in lines], met=[line.met for line in lines], section=section)


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


def write_json(path: Path, results: Sequence[Result], lines: Sequence[Line], starts: Sequence[Start] = ()) -> None:
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
        "cold_start": [asdict(start) for start in starts],
        "table": [asdict(line) for line in lines],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def print_tables(tables: Sequence[Table]) -> None:
    """The tables, for people."""
    from rich import table
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    for shown in tables:
        title = f"{shown.title}, {os.cpu_count()} cores, medians; imports are not timed"
        drawn = table.Table(title=title, title_justify="left")
        for name in shown.header:
            drawn.add_column(name, justify="left" if name in _TEXTS else "right", overflow="fold")
        for row, met in zip_longest(shown.rows, shown.met):
            drawn.add_row(*row, style={True: "green", False: "red", None: ""}[met])
        console.print(drawn)


def check_target(tables: Sequence[Table], target: str | None) -> None:
    """Whether `write_markdown` will find a place for one of the tables. Raises ContestError."""
    if target in (None, "-"):
        return
    text = Path(target).read_text() if Path(target).exists() else ""
    places = [_around(table, text, target) for table in tables]
    if not any(places):
        begin, end = tables[0].marks
        raise ContestError(f"{target} has no {begin} ... {end} to put the results between")


def write_markdown(tables: Sequence[Table], target: str) -> None:
    """Prints the tables as markdown ("-"), or puts those between their marks in a file that have some there.

    Raises:
      ContestError: none has.
    """
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    texts = [_markdown(table) for table in tables]
    texts[0] = f"{facts}\n\n{texts[0]}"
    if target == "-":
        print("\n\n".join(texts))
        return
    check_target(tables, target)
    whole = Path(target).read_text()
    for table, text in zip(tables, texts, strict=True):
        around = _around(table, whole, target)
        if around:
            whole = f"{around[0]}{table.marks[0]}\n{text}\n{table.marks[1]}{around[1]}"
    Path(target).write_text(whole)


def _markdown(table: Table) -> str:
    rows = [table.header, ("---",) * len(table.header), *table.rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _around(table: Table, text: str, path: str) -> tuple[str, str] | None:
    """What stands before and behind the table's marks, if they are there."""
    before, begin, rest = text.partition(table.marks[0])
    if not begin:
        return None
    _, end, after = rest.partition(table.marks[1])
    if not end:
        raise ContestError(f"{path} has {begin}, but no {table.marks[1]} behind it")
    return before, after
