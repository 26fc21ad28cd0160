"""`python -m tests.benchmarks.endpoint`: a model on a server, asked in different ways, against named baselines.

Server (`model.serve`) and pipeline (`pipelines.batch`) are processes of this machine and share its cores. Every run
reads a generated CSV file, predicts its rows and writes key and prediction as CSV, in a process of its own; imports
are not timed. Repeats are interleaved, so that drift of the machine hits all alike, and medians are compared. What
each run wrote is compared with the predictions of the model in the pipeline.

exit codes: 0 everything was measured, whether or not the targets are met; 1 a run failed or results disagree
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import contest, report
from tests.benchmarks.contestants.common import BATCH_ROWS as DIRECT_BATCH_ROWS
from tests.benchmarks.contestants.common import WORKERS
from tests.benchmarks.data import births_file
from tests.benchmarks.endpoint_report import endpoint_lines, endpoint_tables
from tests.support.serving_process import Serving, serving

OUT = Path("out/bench")
MODEL = "model/trained/v1"
MODEL_NAME = "default"
BATCH_ROWS = 1_000
SIZES = (1, 10, 100, 1_000, 10_000)
LATENCY_MS = 20
LATENCY_BATCH_ROWS = 100
LATENCY_REQUESTS = 500
IN_FLIGHT = 8
TOLERANCE = 1e-6
"""Relative: a few of the steps that float32 has. Sums differ with the size of the batch."""

DIRECT = "direct"
NAIVE = {"naive": "naive_rest", "naive_beam": "naive_beam"}
"""Name -> module in contestants."""

PROTOCOLS: dict[str, dict[str, Any]] = {
    "rest_columns": {"protocol": "tf_serving_rest", "body": "columns"},
    "rest_rows": {"protocol": "tf_serving_rest", "body": "rows"},
    "grpc": {"protocol": "tf_serving_grpc"},
    "kserve_v2_json": {"protocol": "kserve_v2", "body": "json"},
    "kserve_v2_binary": {"protocol": "kserve_v2", "body": "binary"},
    "ai_platform": {
        "protocol": "ai_platform",
        "resource": f"projects/local/models/{MODEL_NAME}",
        "signature_from": MODEL,
    },
}
"""Name -> what a config says of the model, but for its address."""

GROUPS = ("protocols", "one_record", "in_flight", "batch_sizes")


@dataclass(frozen=True)
class Case(contest.Entry):
    """One way to get predictions.

    Attributes:
      how: direct, or a name of NAIVE or PROTOCOLS.
      batch_rows: rows in a call of the model, or in a request.
      in_flight: requests at a time.
      slow: asks the server that takes LATENCY_MS longer.
    """

    how: str
    batch_rows: int
    in_flight: int = IN_FLIGHT
    slow: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _options(argv)
    try:
        _run(options)
    except contest.ContestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    groups = options.only or GROUPS
    for target in options.markdown:
        report.check_target(endpoint_tables({}, groups), target)
    cases = _cases(groups, options.rows, options.requests)
    files = {case.rows: case.file for case in cases}
    wanted = [Case(f"reference-{rows}", files[rows], rows, DIRECT, BATCH_ROWS) for rows in sorted(files)]
    with ExitStack() as stack:
        servers = {False: _started(stack), True: _started(stack, "--latency-ms", str(LATENCY_MS))}

        def command(entry: contest.Entry, folder: Path) -> list[str]:
            assert isinstance(entry, Case)
            return _command(entry, folder, servers[entry.slow])

        references: contest.References = {}
        contest.rounds(wanted, 1, OUT, command, references)
        results = contest.rounds(cases, options.repeats, OUT, command, references, check_all=True, tolerance=TOLERANCE)
    found = {result.entry.name: result for result in results}
    tables = endpoint_tables(found, groups)
    report.write_json(OUT / "endpoint.json", results, endpoint_lines(found, groups))
    if not options.markdown:
        report.print_tables(tables)
    for target in options.markdown:
        report.write_markdown(tables, target)


def _cases(groups: Sequence[str], rows: int, requests: int) -> list[Case]:
    """What the groups need, each case once."""
    found: dict[str, Case] = {}

    def add(how: str, batch_rows: int, rows: int, name: str = "", **settings: Any) -> None:
        name = name or f"{how}-{batch_rows}"
        found[name] = Case(name, births_file(OUT / "data", rows), rows, how, batch_rows, **settings)

    if "protocols" in groups:
        for how in (*NAIVE, *PROTOCOLS, DIRECT):
            add(how, BATCH_ROWS, rows)
        add(DIRECT, DIRECT_BATCH_ROWS, rows)
    if "one_record" in groups:
        for batch_rows in (1, BATCH_ROWS):
            for how in ("naive", "rest_columns"):
                add(how, batch_rows, min(rows, requests * batch_rows))
    if "in_flight" in groups:
        for in_flight in (1, IN_FLIGHT):
            name = f"in_flight-{in_flight}"
            some = min(rows, LATENCY_REQUESTS * LATENCY_BATCH_ROWS)
            add("rest_columns", LATENCY_BATCH_ROWS, some, name, in_flight=in_flight, slow=True)
    if "batch_sizes" in groups:
        for how in ("rest_columns", "grpc"):
            for size in SIZES:
                add(how, size, min(rows, requests * size))
    return list(found.values())


def _started(stack: ExitStack, *arguments: str) -> Serving:
    try:
        return stack.enter_context(serving(MODEL, "--name", MODEL_NAME, *arguments))
    except AssertionError as error:
        raise contest.ContestError(str(error)) from None


def _command(case: Case, folder: Path, server: Serving) -> list[str]:
    if case.how in NAIVE:
        address = f"{server.rest}/v1/models/{MODEL_NAME}:predict"
        settings: Mapping[str, Any] = {
            "input": case.file, "output": folder / "output", "url": address, "batch_rows": case.batch_rows
        }  # fmt: skip
        arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        return [sys.executable, "-m", f"tests.benchmarks.contestants.{NAIVE[case.how]}", *arguments]
    settings = {
        "source.path": str(case.file),
        "model": _model(case, server),
        "batching.max_rows": case.batch_rows,
        "output.path": str(folder / "output" / "part"),
        "dead_letters.path": str(folder / "scratch" / "dead"),
    }
    arguments = [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    options = ["--config", "configs/natality.json", "--json", f"--direct_num_workers={WORKERS}"]
    return [sys.executable, "-m", "pipelines.batch", *options, *arguments]


def _model(case: Case, server: Serving) -> dict[str, Any]:
    """What the config says of the model."""
    if case.how == DIRECT:
        return {"type": "saved_model", "path": MODEL}
    url = server.grpc if case.how == "grpc" else server.rest
    return {"type": "endpoint", **PROTOCOLS[case.how], "url": url, "max_in_flight": case.in_flight}


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.endpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, help="rows of a file at most (200,000; 20,000 with --quick)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each case (%(default)s)")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), metavar="GROUP,...", help=f"of {', '.join(GROUPS)}"
    )
    parser.add_argument("--quick", action="store_true", help="files of 20,000 rows, 500 requests at most")
    parser.add_argument(
        "--markdown", nargs="?", const="-", action="append", default=[], metavar="FILE",
        help="print the results as markdown, or put them into FILE between its result marks; may be repeated",
    )  # fmt: skip
    options = parser.parse_args(argv)
    options.rows = options.rows or (20_000 if options.quick else 200_000)
    options.requests = 500 if options.quick else 2_000
    unknown = set(options.only or []) - set(GROUPS)
    if unknown:
        parser.error(f"--only: unknown: {', '.join(sorted(unknown))}; known: {', '.join(GROUPS)}")
    if options.rows < 1 or options.repeats < 1:
        parser.error("--rows and --repeats must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
