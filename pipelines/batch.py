"""`python -m pipelines.batch`: predictions for bounded input, from one JSON config."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from pipelines.cli import command
from pipelines.cli.beam_flags import beam_flags, has_other_processes, is_set

_DESCRIPTION = """\
Reads files, predicts every row with a TensorFlow model, writes files; what fails goes to dead letters.

All other options are Beam's own and are passed through:
  --runner DataflowRunner --project P --region R --temp_location gs://B/tmp
  --runner FlinkRunner, --runner PrismRunner; the default is Beam's FnApiRunner in this process
  --direct_num_workers N   threads of the default runner (one a core)
  --dry_run                build the job and check its options, without running it

exit codes: 0 all rows accounted for, 1 the run failed, 2 the config or the command line is wrong,
  3 rows are missing or too many were dead-lettered"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    started = time.monotonic()
    parser = command.parser("batch", _DESCRIPTION)
    parser.add_argument("--prices", metavar="FILE", help="prices of Dataflow, instead of configs/prices.json")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    arguments, flags = parser.parse_known_args(argv)
    return command.guarded(lambda: _run(arguments, flags, started))


def _run(arguments: Any, flags: list[str], started: float) -> int:
    from pipelines.cli import run_batch
    from pipelines.config.load import load
    from pipelines.planning.planner import make_plan

    flags = beam_flags(flags)
    config = load(arguments.config, arguments.set, absolute=has_other_processes(flags))
    run_batch.refuse_streams(config)
    dry_run = is_set(flags, "dry_run")
    plan = make_plan(config, offline=dry_run)
    if dry_run:
        return run_batch.execute(plan, arguments, flags, started, None)
    with run_batch.reservation(plan) as reserved:
        code = run_batch.prepare_sink(plan, arguments, reserved)
        return run_batch.execute(plan, arguments, flags, started, reserved) if code is None else code


if __name__ == "__main__":
    sys.exit(main())
