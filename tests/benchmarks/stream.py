"""`python -m tests.benchmarks.stream`: latency and throughput of streams in this process.

Every case is `python -m pipelines.stream` on simulated messages of JSON with the packaged model, in a process of its
own; what it reports with --json is the result. `max_wait_ms` is 20. Single-record mode is measured beside it.

exit codes: 0 everything was measured, whether or not the targets are met; 1 a case failed or lost messages
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks import harness
from tests.benchmarks.contest import ContestError
from tests.benchmarks.report import Table, check_target, print_tables, write_markdown

WAIT_MS = 20
LATENCY_TARGET_MS = WAIT_MS + 30
SINGLE_LATENCY_TARGET_MS = 10
RATE_TARGET = 150_000


@dataclass(frozen=True)
class Case:
    """A stream.

    Attributes:
      name: what is measured.
      rate: messages a second; 0 for as many as possible.
      max_rows: of a micro-batch.
      seconds: how long.
    """

    name: str
    rate: int
    max_rows: int
    seconds: float


CASES = [
    Case("500 messages/s", 500, 1000, 10),
    Case("5,000 messages/s", 5_000, 1000, 10),
    Case("50,000 messages/s", 50_000, 4096, 10),
    Case("as many as possible", 0, 4096, 10),
    Case("500 messages/s, one at a time", 500, 1, 10),
    Case("as many as possible, one at a time", 0, 1, 10),
]
HEADER = ("stream", "messages", "messages/s", "p50 ms", "p95 ms", "p99 ms", "peak MB", "target", "met")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.stream",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each case (%(default)s)")
    parser.add_argument("--markdown", metavar="FILE", help="put the results between the marks of a file, - to print")
    options = parser.parse_args(argv)
    try:
        check_target([Table("stream", [], HEADER, section="stream")], options.markdown)
        found: dict[str, list[dict[str, Any]]] = {case.name: [] for case in CASES}
        for round in range(options.repeats):
            for case in CASES if round % 2 == 0 else reversed(CASES):
                found[case.name].append(_run(case))
                print(
                    f"round {round + 1}/{options.repeats}  {case.name}: {_said(found[case.name][-1])}", file=sys.stderr
                )
    except ContestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [_cells(case, found[case.name]) for case in CASES]
    met = [{"yes": True, "NO": False}.get(row[-1]) for row in rows]
    table = Table("streams, medians", rows, HEADER, met, "stream")
    if options.markdown:
        write_markdown([table], options.markdown)
    else:
        print_tables([table])
    return 0


def _run(case: Case) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "source": json.dumps({"type": "simulated", "rate": case.rate, "key": "source_id"}),
            "batching": json.dumps({"max_rows": case.max_rows, "max_wait_ms": WAIT_MS}),
            "output.path": f"{folder}/p",
            "output.show": "0",
            "dead_letters.path": f"{folder}/d",
        }
        parts = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        command = [sys.executable, "-m", "pipelines.stream", "--duration", str(case.seconds), "--json", *parts]
        finished = harness.run(command, timeout=120)
    if finished.code:
        raise ContestError(f"{case.name} ended with {finished.code}:\n{finished.err[-3000:]}")
    summary: dict[str, Any] = json.loads(finished.out.strip().splitlines()[-1])
    if summary["rows_read"] != summary["rows_written"] or not summary["rows_read"]:
        raise ContestError(f"{case.name}: {summary['rows_read']} messages read, {summary['rows_written']} written")
    return {**summary, "peak_mb": finished.peak_rss_mb}


def _said(summary: dict[str, Any]) -> str:
    return f"{summary['rows_per_second']:,.0f} messages/s, p99 {summary['latency_ms']['p99']:.1f} ms"


def _cells(case: Case, runs: list[dict[str, Any]]) -> tuple[str, ...]:
    def median(value: Any) -> float:
        return statistics.median(value(run) for run in runs)

    rate = median(lambda run: run["rows_per_second"])
    latencies = [median(lambda run, name=name: run["latency_ms"][name]) for name in ("p50", "p95", "p99")]
    target, met = "", ""
    if case.max_rows > 1 and case.rate in (500, 5_000):
        target, met = f"p99 <= {LATENCY_TARGET_MS} ms", "yes" if latencies[2] <= LATENCY_TARGET_MS else "NO"
    elif case.max_rows == 1 and case.rate == 500:
        target, met = (
            f"p99 <= {SINGLE_LATENCY_TARGET_MS} ms",
            "yes" if latencies[2] <= SINGLE_LATENCY_TARGET_MS else "NO",
        )
    elif case.max_rows > 1 and not case.rate:
        target, met = f">= {RATE_TARGET:,} messages/s", "yes" if rate >= RATE_TARGET else "NO"
    return (
        case.name,
        f"{median(lambda run: run['rows_read']):,.0f}",
        f"{rate:,.0f}",
        *(f"{value:,.1f}" for value in latencies),
        f"{median(lambda run: run['peak_mb']):,.0f}",
        target,
        met,
    )


if __name__ == "__main__":
    sys.exit(main())
