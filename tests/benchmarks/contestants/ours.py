"""This project: `python -m pipelines.batch`, with the packaged config and Beam's in-process runner.

The whole command is timed, from the reading of its config to its exit code, except for imports.
"""

from __future__ import annotations

import contextlib
import io
import json

from pipelines import batch, cli

with cli.quiet_imports():
    import apache_beam.runners.portability.fn_api_runner.fn_runner  # noqa: F401
    import polars  # noqa: F401
    import tensorflow  # noqa: F401

    from pipelines import (  # noqa: F401
        engine,
        graph,
        plan,
        report,
        run_command,
    )
    from pipelines.formats import csv  # noqa: F401

from tests.benchmarks.contestants.common import BATCH_ROWS, WORKERS, Job, job_from_command_line, measure


def run(job: Job) -> int:
    """Runs the command in this process."""
    settings = {
        "source.path": job.input,
        "model.path": job.model,
        "batching.max_rows": BATCH_ROWS,
        "output.path": f"{job.output}/part",
        "dead_letters.path": f"{job.scratch}/dead",
    }
    arguments = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = batch.main(
            ["--config", "configs/natality.json", *arguments, "--json", f"--direct_num_workers={WORKERS}"]
        )
    if code:
        raise SystemExit(f"pipelines.batch ended with {code}")
    summary = json.loads(said.getvalue())
    return int(summary["rows_written"])


if __name__ == "__main__":
    measure(run, job_from_command_line())
