"""From a plan to an exit code: what `pipelines.stream` does, in this process."""

from __future__ import annotations

import sys
from typing import Any

import pyarrow as pa

from pipelines import cli, files
from pipelines.config import ConfigError, SimulatedSource
from pipelines.formats import reader_class, writer_class
from pipelines.plan import Plan
from pipelines.streams import rolling, stop

_MOST_BYTES = 256 << 20
"""Of a file of messages to repeat."""


def execute(plan: Plan, source: SimulatedSource, arguments: Any, flags: list[str], started: float) -> int:
    """Runs a plan until its source ends, or somebody ends it, and prints the summary.

    Args:
      plan: what to do.
      source: where messages come from.
      arguments: of the command line, parsed.
      flags: the rest of the command line, for Beam.
      started: time.monotonic() at the start of the command.
    """
    out, err = cli.consoles()
    payloads = None if source.path is None else _lines(source.path)
    for note in plan.notes:
        err.print(f"note: {note}")
    err.print(f"{plan.config.name}: {source.describe()}; loading Beam and TensorFlow ...")
    with cli.quiet_imports():
        from pipelines import engine, report
        from pipelines.sources import simulated
        from pipelines.streams import flow, run

        # One worker is fast enough, and several would wait for each other at the end of each bundle.
        options = engine.options_from([*flags, "--streaming", "--direct_num_workers=1"])
        if not engine.is_in_process(options):
            raise ConfigError([f"--runner {engine.runner_name(options)}: simulated streams run in this process only"])
        engine.import_libraries(options, plan)
    _recover(plan, err)
    read = simulated.ReadSimulated(
        simulated.SimulatedSource(
            rate=source.rate,
            messages=source.messages,
            duration_s=source.duration_s,
            max_rows=plan.config.batching.max_rows,
            max_wait_ms=plan.config.batching.max_wait_ms,
            seed=source.seed,
        ),
        payloads,
    )
    reader = reader_class(source.format)(plan.read)
    err.print(f"running on {engine.runner_name(options)}; Ctrl-C ends it in order")
    try:
        with stop.on_signals():
            summary = run.run(plan, options, lambda p: flow.build(p, plan, read, reader, arguments.json), err, started)
    except engine.RunFailedError as error:
        print(f"{error.details}\nerror: {error}", file=sys.stderr)
        return cli.FAILED
    finally:
        stop.reset()
    if arguments.json:
        print(summary.to_json())
    else:
        report.print_summary(out, summary)
    for problem in summary.problems():
        print(f"error: {problem}", file=sys.stderr)
    return cli.OK if summary.ok else cli.INCOMPLETE


def _recover(plan: Plan, err: Any) -> None:
    """Publishes what a killed run left."""
    config = plan.config
    prefixes = [(config.dead_letters_path, "jsonl")]
    if config.output.type == "file":
        prefixes.append((config.output.path, writer_class(config.output.format).extension))
    for prefix, extension in prefixes:
        count = rolling.recover(prefix, extension)
        if count:
            err.print(f"note: published {count} file{'s' * (count > 1)} that a stopped run left at {prefix}")


def _lines(path: str) -> pa.Array:
    """The messages of a file, one a line."""
    try:
        content = files.read_range(path, 0, _MOST_BYTES)
    except OSError as error:
        raise ConfigError([f"source.path: {path} cannot be read: {error.strerror or error}"]) from None
    lines = [line for line in content.split(b"\n") if line.strip()]
    if not lines:
        raise ConfigError([f"source.path: {path} has no messages"])
    return pa.array(lines, pa.binary())
