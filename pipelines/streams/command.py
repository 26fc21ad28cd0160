"""From a plan to an exit code: what `pipelines.stream` does, in this process."""

from __future__ import annotations

import sys
from typing import Any

from pipelines import cli
from pipelines.config import ConfigError
from pipelines.formats import reader_class
from pipelines.plan import Plan
from pipelines.source_config import PubSubSource, SimulatedSource
from pipelines.streams import sources, stop
from pipelines.streams.destinations import Destination, destination, recovered


def execute(
    plan: Plan, source: SimulatedSource | PubSubSource, arguments: Any, flags: list[str], started: float
) -> int:
    """Runs a plan until its source ends, or somebody ends it, and prints the summary.

    Args:
      plan: what to do.
      source: where messages come from.
      arguments: of the command line, parsed.
      flags: the rest of the command line, for Beam.
      started: time.monotonic() at the start of the command.
    """
    to = destination(plan)
    with sources.opened(source) as opened:
        to.check()
        return _execute(plan, opened, to, source.describe(), arguments, flags, started)


def _execute(
    plan: Plan,
    opened: sources.Opened,
    to: Destination,
    description: str,
    arguments: Any,
    flags: list[str],
    started: float,
) -> int:
    out, err = cli.consoles()
    for note in plan.notes:
        err.print(f"note: {note}")
    err.print(f"{plan.config.name}: {description}; loading Beam and TensorFlow ...")
    with cli.quiet_imports():
        from pipelines import engine, report
        from pipelines.streams import flow, run

        # One worker is fast enough, and several would wait for each other at the end of each bundle.
        options = engine.options_from([*flags, "--streaming", "--direct_num_workers=1"])
        if not engine.is_in_process(options):
            raise ConfigError([f"--runner {engine.runner_name(options)}: streams run in this process only"])
        engine.import_libraries(options, plan)
    _recover(plan, to, err)
    read = opened.read(plan.config.batching)
    reader = reader_class(plan.config.source.reads)(plan.read)
    err.print(f"running on {engine.runner_name(options)}; Ctrl-C ends it in order")
    try:
        with stop.on_signals():
            summary = run.run(plan, options, lambda p: flow.build(p, plan, read, reader, arguments.json), err, started)
    except engine.RunFailedError as error:
        print(f"{error.details}\nerror: {error}", file=sys.stderr)
        return cli.FAILED
    finally:
        stop.reset()
    left = opened.finish()
    if left:
        err.print(f"note: {left:,} messages could not be acknowledged: they will be delivered again")
    if arguments.json:
        print(summary.to_json())
    else:
        report.print_summary(out, summary)
    for problem in summary.problems():
        print(f"error: {problem}", file=sys.stderr)
    return cli.OK if summary.ok else cli.INCOMPLETE


def _recover(plan: Plan, to: Destination, err: Any) -> None:
    """Completes what a killed run left."""
    for line in [*recovered(plan.config.dead_letters_path, "jsonl"), *to.recover()]:
        err.print(f"note: {line}")
