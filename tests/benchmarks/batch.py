"""`python -m tests.benchmarks.batch`: throughput, growth and cold start, measured against named baselines.

Every contestant does the same job (see `contestants/common.py`) in a process of its own, with two workers, on
the same generated file. Imports and the start of an engine are not timed; loading the model, reading,
predicting and writing are. Repeats are interleaved, so that drift of the machine hits all alike, and medians
are compared.

exit codes: 0 everything was measured, whether or not the targets are met; 1 a contestant failed or results
disagree
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import cold_start, contest, report
from tests.benchmarks.data import births_file

OUT = Path("out/bench")
STOCK_ROWS = 200_000
GROWTH = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _options(argv)
    try:
        return _run(options)
    except contest.ContestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    report.check_target([report.table("batch", [])], options.markdown)
    names = options.only or [*contest.CONTESTANTS, "growth", "cold_start"]
    if options.quick:
        names = [name for name in names if name != "growth" and not name.startswith(("ray_data", "spark"))]
    entries = [
        contest.Entry(name, births_file(OUT / "data", rows), rows)
        for name in names
        if name in contest.CONTESTANTS
        for rows in [min(options.rows, STOCK_ROWS) if "stock" in name and not options.full else options.rows]
    ]
    if "growth" in names:
        entries += [
            contest.Entry("ours", births_file(OUT / "data", rows), rows)
            for rows in (options.rows, GROWTH * options.rows)
            if ("ours", rows) not in [(entry.name, entry.rows) for entry in entries]
        ]
    results = contest.run(entries, options.repeats, OUT)
    starts = cold_start.measure(options.repeats) if "cold_start" in names else []
    growth = (options.rows, GROWTH * options.rows) if "growth" in names else None
    lines = [
        *report.throughput(results, options.rows),
        *report.growth(results, growth),
        *report.starts(starts),
    ]
    report.write_json(OUT / "batch.json", results, lines, starts)
    if options.markdown is None:
        report.print_tables([report.table("batch", lines)])
    else:
        report.write_markdown([report.table("batch", lines)], options.markdown)
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices = [*contest.CONTESTANTS, "growth", "cold_start"]
    parser.add_argument("--rows", type=int, help="rows of the file (2,000,000; 200,000 with --quick)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contestant (%(default)s)")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), metavar="NAME,...", help=f"of {', '.join(choices)}"
    )
    parser.add_argument("--quick", action="store_true", help="200,000 rows, without Ray, Spark and growth")
    parser.add_argument("--full", action="store_true", help=f"the stock pipeline on all rows, not on {STOCK_ROWS:,}")
    parser.add_argument(
        "--markdown", nargs="?", const="-", metavar="FILE",
        help="print the results as markdown, or put them into FILE between its result marks",
    )  # fmt: skip
    options = parser.parse_args(argv)
    options.rows = options.rows or (200_000 if options.quick else 2_000_000)
    unknown = set(options.only or []) - set(choices)
    if unknown:
        parser.error(f"--only: unknown: {', '.join(sorted(unknown))}; known: {', '.join(choices)}")
    if options.rows < 1 or options.repeats < 1:
        parser.error("--rows and --repeats must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
