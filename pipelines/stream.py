"""Predicts a stream of messages, from one JSON config: the command `python -m pipelines.stream`."""

from __future__ import annotations

if __name__ == "__main__":
    from model import early_interrupt

    early_interrupt.begin()

import importlib.metadata
import sys
import time
from collections.abc import Sequence
from typing import Any

from model.argument_types import number, whole_number
from pipelines.cli import command
from pipelines.cli.beam_flags import beam_flags, has_other_processes, is_set, is_template

_APPENDED = ("csv", "json")
_OLDEST_BEAM = (2, 77)
"""The first with sources of streams in Python."""
_DESCRIPTION = """\
Takes messages, predicts each with a TensorFlow model in micro-batches, writes the predictions; what fails goes to dead
letters. Without --config: configs/natality-stream.json, 10,000 simulated messages at 500 a second.

Ctrl-C or SIGTERM ends it in order: nothing more is taken, what was taken is finished. A second Ctrl-C stops at once.

All other options are Beam's own and are passed through (docs/running.md):
  --runner PrismRunner, --runner FlinkRunner, --runner DataflowRunner; the default is Beam's FnApiRunner in this process
  --dry_run                build the job and check its options, without running it

exit codes: 0 all messages accounted for, 1 the run failed, 2 the config or the command line is wrong,
  3 messages are missing or too many were dead-lettered"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    started = time.monotonic()
    parser = command.parser("stream", _DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.add_argument("--max-messages", type=whole_number, metavar="N", help="end after N messages")
    parser.add_argument("--duration", type=number, metavar="SECONDS", help="end after so many seconds")
    arguments, flags = parser.parse_known_args(argv)
    return command.guarded(lambda: _run(arguments, flags, started))


def _run(arguments: Any, flags: list[str], started: float) -> int:
    from pipelines.cli import hand_over_stream, run_stream
    from pipelines.config.bigquery import BigQueryOutput
    from pipelines.config.errors import ConfigError
    from pipelines.config.load import PACKAGED_STREAM, load
    from pipelines.planning.planner import make_plan

    version = importlib.metadata.version("apache-beam")
    if tuple(map(int, version.split(".")[:2])) < _OLDEST_BEAM:
        raise ConfigError([f"streams need Apache Beam 2.77, and so Python 3.11; here is Apache Beam {version}"])
    flags = beam_flags(flags)
    is_template(flags)
    limits = {"messages": arguments.max_messages, "duration_s": arguments.duration}
    given = {name: value for name, value in limits.items() if value is not None}
    if any(value <= 0 for value in given.values()):
        raise ConfigError(["--max-messages and --duration: must be more than 0"])
    config = load(arguments.config or PACKAGED_STREAM, arguments.set, absolute=has_other_processes(flags))
    problems = []
    if config.is_batch:
        problems.append(f"source.type: {config.source.type} has an end: run python -m pipelines.batch")
    if config.model.type == "batch_job":
        problems.append("model.type: batch_job is for python -m pipelines.batch; give a saved_model or an endpoint")
    if config.output.type == "file" and config.output.format not in _APPENDED:
        problems.append(
            f"output.format: {config.output.format} files cannot be appended to; "
            f"a stream writes {' or '.join(_APPENDED)}"
        )
    if isinstance(config.output, BigQueryOutput) and not config.is_batch:
        problems += config.output.unfit(is_batch=False)
    if problems:
        raise ConfigError(problems)
    source: Any = config.source
    writes_here = not is_set(flags, "dry_run") and not hand_over_stream.is_elsewhere(flags)
    plan = make_plan(config, writes_here=writes_here)
    return run_stream.execute(plan, source.model_copy(update=given), arguments, flags, started)


if __name__ == "__main__":
    sys.exit(main())
