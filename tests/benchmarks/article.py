"""`python -m tests.benchmarks.article`: the streaming cases of the article, with our times beside its.

10,000 messages at 50, 100 and 500 a second; the model in the workers or behind a server (`model.serve` on this machine,
REST); one record a call, or micro-batches that wait 1 s as the article's windows do. Every case is
`python -m pipelines.stream` in a process of its own. Theirs ran on Dataflow with 5 workers and 3 nodes of the endpoint
in Google Cloud, from Pub/Sub to BigQuery; ours on one machine, from the embedded source to files: what compares is how
far behind the messages a way of calling the model falls, not the machines. With all messages it takes 22 minutes.

exit codes: 0 everything was measured; 1 a case failed or lost messages
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks import harness
from tests.benchmarks.contest import ContestError
from tests.benchmarks.report import Table, check_target, print_tables, write_markdown
from tests.support.serving_process import serving

_ALL = 10_000
_MODEL = "model/trained/v1"
_WINDOW_MS = 1_000
_SECTION = "article"
HEADER = ("case", "messages/s", "messages", "at least", "ours", "behind", "p50 ms", "p99 ms", "the article's")


@dataclass(frozen=True)
class Case:
    """A case of the article.

    Attributes:
      where: direct or endpoint.
      single: one record a call.
      rate: messages a second.
      theirs: total time of 10,000 messages, minutes:seconds; what is said in its place.
    """

    where: str
    single: bool
    rate: int
    theirs: str

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.where}, {'single' if self.single else 'micro-batch'}"


CASES = [
    Case("endpoint", True, 50, "9:34"),
    Case("endpoint", True, 100, "6:03"),
    Case("endpoint", True, 500, "not finished (quota)"),
    Case("endpoint", False, 50, "7:44"),
    Case("endpoint", False, 100, "4:34"),
    Case("endpoint", False, 500, "2:47"),
    Case("direct", True, 50, "3:43"),
    Case("direct", True, 100, "1:51"),
    Case("direct", True, 500, "1:23"),
    Case("direct", False, 50, "3:22"),
    Case("direct", False, 100, "1:41"),
    Case("direct", False, 500, "0:48"),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.article",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=_ALL, help="of each case (%(default)s)")
    parser.add_argument("--rates", type=int, nargs="+", default=[50, 100, 500], help="which cases (%(default)s)")
    parser.add_argument("--markdown", metavar="FILE", help="put the results between the marks of a file, - to print")
    options = parser.parse_args(argv)
    rows = []
    try:
        check_target([Table("article", [], HEADER, section=_SECTION)], options.markdown)
        with serving(_MODEL) as server:
            for case in (case for case in CASES if case.rate in options.rates):
                found = _run(case, options.messages, server.rest)
                rows.append(_cells(case, options.messages, found))
                print("  ".join(rows[-1]), file=sys.stderr)
    except ContestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    table = Table("the article's streams", rows, HEADER, [None] * len(rows), _SECTION)
    if options.markdown:
        write_markdown([table], options.markdown)
    else:
        print_tables([table])
    return 0


def _run(case: Case, messages: int, url: str) -> dict[str, Any]:
    model = {"type": "saved_model", "path": _MODEL}
    if case.where == "endpoint":
        model = {"type": "endpoint", "protocol": "tf_serving_rest", "url": url}
    batching = {"max_rows": 1 if case.single else 1_000, "max_wait_ms": 0 if case.single else _WINDOW_MS}
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "source": json.dumps({"type": "simulated", "rate": case.rate, "messages": messages, "key": "source_id"}),
            "model": json.dumps(model),
            "batching": json.dumps(batching),
            "output.path": f"{folder}/p",
            "output.show": "0",
            "dead_letters.path": f"{folder}/d",
        }
        parts = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        command = [sys.executable, "-m", "pipelines.stream", "--json", *parts]
        finished = harness.run(command, timeout=60 + 10 * messages / case.rate)
    if finished.code:
        raise ContestError(f"{case.name} ended with {finished.code}:\n{finished.err[-3000:]}")
    summary: dict[str, Any] = json.loads(finished.out.strip().splitlines()[-1])
    if summary["rows_written"] != messages:
        raise ContestError(f"{case.name}: {summary['rows_written']} of {messages} messages were written")
    return summary


def _cells(case: Case, messages: int, summary: dict[str, Any]) -> tuple[str, ...]:
    least = messages / case.rate
    latency = summary["latency_ms"]
    return (
        case.name,
        str(case.rate),
        f"{messages:,}",
        _clock(least),
        _clock(summary["seconds"]),
        f"{summary['seconds'] - least:.1f} s",
        f"{latency['p50']:,.1f}",
        f"{latency['p99']:,.1f}",
        case.theirs,
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{seconds % 60:04.1f}"


if __name__ == "__main__":
    sys.exit(main())
