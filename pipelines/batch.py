"""`python -m pipelines.batch`: predictions for bounded input, from one JSON config."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from pipelines import cli

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
    parser = cli.parser("batch", _DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    arguments, flags = parser.parse_known_args(argv)
    return cli.guarded(lambda: _run(arguments, flags, started))


def _run(arguments: Any, flags: list[str], started: float) -> int:
    from pipelines.config import ConfigError, load
    from pipelines.plan import make_plan

    _refuse_strays(flags)
    config = load(arguments.config, arguments.set)
    plan = make_plan(config, offline=_flag(flags, "dry_run"))
    out, err = cli.consoles()
    for note in plan.notes:
        err.print(f"note: {note}")
    err.print(
        f"{config.name}: {len(plan.files):,} file{'s' * (len(plan.files) != 1)}, "
        f"{sum(file.size for file in plan.files) / 1e6:,.1f} MB; loading Beam and TensorFlow ..."
    )

    cli.quiet_libraries()
    from pipelines import engine, graph, report

    options = engine.options_from(flags)
    problems = engine.check_options(options, plan)
    dry_run = engine.is_dry_run(options)
    if engine.is_remote_runner(options):
        unreachable = engine.unreachable_paths(plan)
        if dry_run:
            for problem in unreachable:
                err.print(f"warning: {problem}")
        else:
            problems += unreachable
    if problems:
        raise ConfigError(problems)
    if dry_run:
        return engine.dry_run(options, lambda pipeline: graph.build(pipeline, plan), out)
    engine.import_model_library(options)
    err.print(f"running on {engine.runner_name(options)}")
    try:
        summary = engine.run(plan, options, lambda pipeline: graph.build(pipeline, plan), err, started)
    except engine.RunFailedError as error:
        print(error.details, file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        return cli.INCOMPLETE if error.incomplete else cli.FAILED
    if arguments.json:
        print(summary.to_json())
    else:
        report.print_summary(out, summary)
    for problem in summary.problems():
        print(f"error: {problem}", file=sys.stderr)
    return cli.OK if summary.ok else cli.INCOMPLETE


def _flag(flags: Sequence[str], name: str) -> bool:
    return any(flag in (f"--{name}", f"--{name}=True", f"--{name}=true") for flag in flags)


def _refuse_strays(flags: Sequence[str]) -> None:
    """A word that belongs to no option is a mistake; the value of an option stands behind it."""
    from pipelines.config import ConfigError

    for before, flag in zip(["", *flags], flags, strict=False):
        if not flag.startswith("-") and (not before.startswith("--") or "=" in before):
            raise ConfigError([f"{flag}: not expected here; a config is given with --config {flag}"])


if __name__ == "__main__":
    sys.exit(main())
