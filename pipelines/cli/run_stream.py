"""Takes a stream's plan to an exit code, with workers in this process."""

from __future__ import annotations

import os
from typing import Any

from model import terminal
from model.quiet import quiet_imports
from model.signals import signals_to
from pipelines import process_state
from pipelines.cli import command, hand_over_stream
from pipelines.config.errors import ConfigError
from pipelines.config.registry import StreamSource
from pipelines.connectors.run import StreamRun, stream_run
from pipelines.connectors.streaming import stop
from pipelines.engine import job_server
from pipelines.flows.dedupe import remember
from pipelines.formats import row_reader_class
from pipelines.plan import Plan
from pipelines.planning import model as models


def execute(plan: Plan, source: StreamSource, arguments: Any, flags: list[str], started: float) -> int:
    """Runs a plan until its source ends, or somebody ends it, and prints the summary.

    Args:
      plan: what to do.
      source: where messages come from.
      arguments: of the command line, parsed.
      flags: the rest of the command line, for Beam.
      started: time.monotonic() at the start of the command.
    """
    if hand_over_stream.is_elsewhere(flags):
        return hand_over_stream.launch(plan, source, flags)
    job_server.check_flags(flags)
    process_state.reset()
    with stream_run(plan, source) as run:
        run.check()
        return _execute(run, source.describe(), arguments, flags, started)


def _execute(run: StreamRun, description: str, arguments: Any, flags: list[str], started: float) -> int:
    plan = run.plan
    out, err = command.consoles()
    for note in plan.notes:
        err.print(note if note.startswith("warning: ") else f"note: {note}")
    err.print(f"{plan.config.name}: {description}; loading Beam and TensorFlow ...")
    with quiet_imports():
        models.open_library_ahead(plan.model)
        from pipelines.beam_fixes import flink_end
        from pipelines.engine import common, failures, options
        from pipelines.engine import stream as engine
        from pipelines.flows import stream as flow
        from pipelines.telemetry.summary import print_summary

        # One worker is fast enough, and several would wait for each other at the end of each bundle.
        given = options.options_from([*flags, "--streaming", "--direct_num_workers=1"])
        problems = options.check_options(given)
        if problems:
            raise ConfigError(problems)
        common.import_libraries(given, plan)
    read = run.source.read(plan.config.batching, plan.config.output.passes_attributes)
    if options.keeps_jobs(given):
        read = flink_end.ReadAndTell(read)
    reader = row_reader_class(plan.config.source.reads)(plan.read)

    def build(pipeline: Any) -> None:
        flow.build(pipeline, run, read, reader, arguments.json)

    if options.is_dry_run(given):
        return common.dry_run(given, build, out)
    _recover(run, err)
    err.print(f"running on {options.runner_name(given)}; Ctrl-C ends it in order")
    try:
        with signals_to(_end_at_once), stop.on_signals():
            summary = engine.run(run, given, build, err, started)
    except failures.RunFailedError as error:
        return command.run_failed(error)
    finally:
        stop.STOPPING.clear()
    # The job has succeeded: all that it was handed is done with, whether its runner said so or not.
    left = run.source.finish(all_is_done=not summary.missing)
    if left:
        err.print(f"note: {left:,} messages could not be acknowledged: they will be delivered again")
    if arguments.json:
        terminal.print_line(summary.to_json())
    else:
        print_summary(out, summary)
    for problem in summary.problems():
        terminal.print_error(problem)
    return command.OK if summary.ok else command.INCOMPLETE


def _end_at_once(number: int, frame: object) -> None:
    """Ends the process at the second signal; `stop.on_signals` puts the end in order before it."""
    os.write(2, b"\nstopped at once: what was written stays, what was not acknowledged comes again\n")
    os._exit(128 + number)


def _recover(run: StreamRun, err: Any) -> None:
    """Completes what a killed run left."""
    for line in run.recover():
        err.print(f"note: {line}")
    known = remember(run)
    if known:
        err.print(f"note: {known:,} keys of what was written lately are known, and dropped if they come again")
