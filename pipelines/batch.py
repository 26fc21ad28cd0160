"""Predicts input that has an end, from one JSON config: the command `python -m pipelines.batch`."""

from __future__ import annotations

if __name__ == "__main__":
    from model import early_interrupt

    early_interrupt.begin()

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from pipelines.cli import command
from pipelines.cli.beam_flags import beam_flags, has_other_processes, is_set, is_template

_STEPS = ("prepare", "submit", "wait", "join")
_DESCRIPTION = """\
Reads files, predicts every row with a TensorFlow model, writes files; what fails goes to dead letters. The model is
called in the workers, at an endpoint, or by a batch prediction job.

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
    parser.add_argument(
        "--prices",
        metavar="FILE",
        help="your prices of Dataflow and of batch prediction jobs, which replace those of configs/prices.json by name",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    _add_job_arguments(parser)
    arguments, flags = parser.parse_known_args(argv)
    return command.guarded(lambda: _run(arguments, flags, started))


def _add_job_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("batch prediction jobs (model.type batch_job)")
    add = group.add_argument
    add("--step", choices=_STEPS, help="do this one step; each is done once, however often it is run")
    add("--detach", action="store_true", help="end once the job is submitted; the same command without it goes on")
    add("--cancel", action="store_true", help="cancel the job that this config has submitted")
    add("--resubmit", action="store_true", help="submit a new job, though one has ended")


def _job_options(arguments: Any) -> list[str]:
    """The options of jobs that were given."""
    given = {"--step": arguments.step, "--detach": arguments.detach, "--cancel": arguments.cancel}
    return [name for name, value in {**given, "--resubmit": arguments.resubmit}.items() if value]


def _run(arguments: Any, flags: list[str], started: float) -> int:
    from pipelines.cli import run_batch
    from pipelines.config.batch_job import BatchJobConfig
    from pipelines.config.errors import ConfigError
    from pipelines.config.load import load
    from pipelines.connectors import registry
    from pipelines.planning.planner import make_plan

    flags = beam_flags(flags)
    config = load(arguments.config, arguments.set, absolute=has_other_processes(flags))
    run_batch.refuse_streams(config)
    dry_run = is_set(flags, "dry_run")
    template = is_template(flags)
    given = _job_options(arguments)
    if isinstance(config.model, BatchJobConfig):
        if len(given) > 1 and given != ["--detach", "--resubmit"]:
            raise ConfigError([f"{' and '.join(given)}: exclude each other; give one"])
        if template:
            from pipelines.cli import job_template

            return job_template.write(make_plan(config), arguments, flags, started)
        from pipelines.cli import run_batch_job

        return run_batch_job.execute(make_plan(config, offline=dry_run), arguments, flags, started)
    if given:
        raise ConfigError([f"{given[0]}: is for batch prediction jobs; model.type is {config.model.type}"])
    plan = make_plan(config, offline=dry_run)
    sink = registry.batch_sink(plan)
    if dry_run or template:
        return run_batch.execute(plan, arguments, flags, started, None, sink)
    with run_batch.reservation(plan) as reserved:
        code = run_batch.prepare_sink(plan, sink, arguments, reserved)
        return run_batch.execute(plan, arguments, flags, started, reserved, sink) if code is None else code


if __name__ == "__main__":
    sys.exit(main())
