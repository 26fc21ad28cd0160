"""This project: `python -m pipelines.batch`, with the packaged config and Beam's in-process runner.

Timed is what the command itself reports as `seconds`: from the pipeline's start to its end, loading the model,
reading, predicting, writing, accounting and publishing included. Imports, and the checks of the config, come before.
"""

from __future__ import annotations

import contextlib
import io
import json
import time

from model.quiet import quiet_imports
from pipelines import batch

with quiet_imports():
    import apache_beam.runners.portability.fn_api_runner.fn_runner  # noqa: F401
    import polars  # noqa: F401

    from model.runtime.library import opened
    from pipelines import plan  # noqa: F401
    from pipelines.engine import batch as engine  # noqa: F401
    from pipelines.flows import batch as graph  # noqa: F401
    from pipelines.formats.csv import reader, writer  # noqa: F401
    from pipelines.telemetry import summary as report  # noqa: F401

from tests.benchmarks.contestants.common import BATCH_ROWS, WORKERS, Job, job_from_command_line, measure

opened()  # TensorFlow's library: the native runtime's import
_run: dict[str, float] = {}


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
    _run["began"] = time.time() - summary["seconds"]
    return int(summary["rows_written"])


if __name__ == "__main__":
    measure(run, job_from_command_line(), lambda: _run["began"])
