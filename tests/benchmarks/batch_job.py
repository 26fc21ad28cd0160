"""`python -m tests.benchmarks.batch_job`: births by a batch prediction job, against the model in the workers.

Both read the same CSV file and write the same predictions, as whole commands, from the start of the process to its end;
they take turns. Of the job, submitting and waiting are left out: that time is the service's. The service is the local
server, on the same cores; it rests while rows are prepared and joined.

exit codes: 0 everything was measured, whether or not a target is met; 1 a run failed
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.data import births_file
from tests.benchmarks.report import Table, check_target, print_tables, write_markdown
from tests.support.job_server import JobServer, job_server
from tests.support.ledger import KEY, MODEL

TARGET_TIME, TARGET_MEMORY = 1.5, 1.5
HEADER = ("CSV -> predictions -> CSV", "rows", "seconds", "peak MB", "compared with", "ratio", "target", "met")


@dataclass(frozen=True)
class Run:
    """Describes a command that was run.

    Attributes:
      seconds: without those of the service.
      peak_mb: most resident memory.
    """

    seconds: float
    peak_mb: float


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.batch_job",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the smaller file (%(default)s)")
    parser.add_argument("--more", type=int, default=10_000_000, help="of the larger one, for memory (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each over the smaller file (%(default)s)")
    parser.add_argument("--markdown", metavar="FILE", help="put the results between the marks of a file, - to print")
    options = parser.parse_args(argv)
    check_target([Table("batch jobs", [], HEADER, section="batch jobs")], options.markdown)
    direct: list[Run] = []
    job: list[Run] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        with job_server(folder) as server:
            try:
                small, large = (births_file(folder, rows) for rows in (options.rows, options.more))
                for round in range(options.repeats):
                    direct.append(_run(folder, small, {"type": "saved_model", "path": MODEL}))
                    job.append(_run(folder, small, _job(server, folder)))
                    done = f"round {round + 1}/{options.repeats}"
                    print(f"{done}  direct {direct[-1].seconds:.2f} s, job {job[-1].seconds:.2f} s", file=sys.stderr)
                more = _run(folder, large, _job(server, folder))
            except RuntimeError as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
    base, ours = _median(direct), _median(job)
    times, growth = ours.seconds / base.seconds, more.peak_mb / ours.peak_mb
    rows = [
        _cells("model in the workers", options.rows, base, "", None, 0),
        _cells("batch job, prepare and join", options.rows, ours, "model in the workers", times, TARGET_TIME),
        _cells("batch job, prepare and join", options.more, more, f"{options.rows:,} rows", growth, TARGET_MEMORY),
    ]
    met = [None, times <= TARGET_TIME, growth <= TARGET_MEMORY]
    table = Table("batch prediction jobs, medians", rows, HEADER, met, "batch jobs")
    if options.markdown:
        write_markdown([table], options.markdown)
    else:
        print_tables([table])
    return 0


def _cells(name: str, rows: int, run: Run, baseline: str, ratio: float | None, target: float) -> tuple[str, ...]:
    judged = ("", "", "") if ratio is None else (f"{ratio:.2f}", f"<= {target:g}", "yes" if ratio <= target else "NO")
    return (name, f"{rows:,}", f"{run.seconds:.2f}", f"{run.peak_mb:,.0f}", baseline, *judged)


def _median(runs: list[Run]) -> Run:
    return Run(statistics.median(run.seconds for run in runs), statistics.median(run.peak_mb for run in runs))


def _job(server: JobServer, folder: Path) -> dict[str, object]:
    shutil.rmtree(folder / "jobs", ignore_errors=True)
    return server.model(folder)


def _run(folder: Path, file: Path, model: dict[str, object]) -> Run:
    config = {
        "source": {"type": "file", "format": "csv", "path": str(file), "key": KEY},
        "model": model,
        "output": {"type": "file", "format": "csv", "path": str(folder / "out" / "p")},
    }
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pipelines.batch", "--config", str(folder / "config.json"), "--json"]
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        out = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begun
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}")
    steps = json.loads(out).get("batch_job", {}).get("steps_s", {})
    return Run(seconds - steps.get("submit", 0.0) - steps.get("wait", 0.0), used.ru_maxrss / 1024)


if __name__ == "__main__":
    sys.exit(main())
