"""Runs dead letters again, with the present config and model: the command `python -m pipelines.replay`."""

from __future__ import annotations

if __name__ == "__main__":
    from model import early_interrupt

    early_interrupt.begin()

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model import terminal
from pipelines.cli import command
from pipelines.cli.beam_flags import beam_flags, has_other_processes, is_set, is_template

if TYPE_CHECKING:
    from pipelines.config.run import RunConfig
    from pipelines.connectors.base import BatchSinkConnector
    from pipelines.connectors.files.publishing.reservation import Reservation
    from pipelines.plan import Plan
    from pipelines.storage import FileInfo

_DESCRIPTION = """\
Runs the dead letters of a config again. What succeeds now is appended to the output, in shards of its own
(<output.path>-replay-...) or as rows of the BigQuery table; what fails again stays a dead letter, with one more
attempt. A replay that was interrupted can be repeated: nothing is written twice.

All other options are Beam's own and are passed through.

exit codes: 0 done (some rows may still be dead letters), 1 the run failed, 2 the config or the command line is wrong,
  3 rows are missing"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    started = time.monotonic()
    parser = command.parser("replay", _DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    arguments, flags = parser.parse_known_args(argv)
    return command.guarded(lambda: _replay(arguments, flags, started))


def _replay(arguments: Any, flags: list[str], started: float) -> int:
    from dataclasses import replace

    from pipelines import storage
    from pipelines.cli import run_batch
    from pipelines.config.errors import ConfigError
    from pipelines.config.load import load
    from pipelines.connectors import registry
    from pipelines.connectors.files.publishing import shards
    from pipelines.planning import stores
    from pipelines.planning.planner import make_plan

    flags = beam_flags(flags)
    if is_template(flags):
        raise ConfigError(["--template_location: a replay is run once, by its command; leave it out"])
    # Rows that fail again were too many before; only a row that is lost makes a replay fail.
    changes = [*arguments.set, "dead_letters.max_fraction=1"]
    config = load(arguments.config, changes, absolute=has_other_processes(flags))
    _refuse_services(config)
    stores.require(config, but=["source", "model"])
    folder, stem = shards.split_prefix(config.dead_letters_path)
    if config.output.type == "file" and not _dead_letters(config) and not storage.entries(folder, f".{stem}"):
        return _nothing(arguments, config)
    plan = make_plan(config, source_may_be_gone=True)
    sink = registry.batch_sink(plan, is_replay=True)
    dry_run = is_set(flags, "dry_run")
    with run_batch.reservation(plan) as reserved:
        if sink is not None and not dry_run:
            code = run_batch.earlier_account(plan, sink, arguments, reserved, "replay the dead letters that are left")
            if code is not None:
                return code
        # A stopped run may have been completed on entering.
        dead_letters = _dead_letters(config)
        if not dead_letters:
            return _nothing(arguments, config, reserved.notes)
        if sink is not None and not dry_run:
            _check(sink, plan)
            reserved.notes += _accounts_due(reserved)
        plan = replace(plan, files=tuple(dead_letters))
        held = None if dry_run else reserved
        return run_batch.execute(plan, arguments, flags, started, held, sink, replayed=dead_letters)


def _dead_letters(config: RunConfig) -> list[FileInfo]:
    """Lists the files of dead letters, of runs and of streams."""
    from pipelines import storage
    from pipelines.connectors.files import rolling
    from pipelines.connectors.files.publishing import shards

    prefix = config.dead_letters_path
    rolled = [found for path in rolling.published(prefix, "jsonl") for found in storage.match(path)]
    return [*shards.published(prefix, ("jsonl",)), *rolled]


def _check(sink: BatchSinkConnector, plan: Plan) -> None:
    """Raises ConfigError if a service would refuse the output, after the plan's notes: that the source is gone may be
    why.
    """
    from pipelines.config.errors import ConfigError

    try:
        sink.check()
    except ConfigError:
        for note in plan.notes:
            terminal.print_line(f"note: {note}", stderr=True)
        raise


def _accounts_due(reserved: Reservation) -> list[str]:
    """Gives, on one line, the account of a run that was stopped before it could: the replay's takes its place."""
    left = reserved.left_unreported()
    if left is None:
        return []
    return [
        f"run '{left.name}' ({left.run}) was stopped before it gave its account: {left.rows_read:,} rows read, "
        f"{left.rows_written:,} written, {left.rows_dead_lettered:,} dead-lettered; it is over, and is not to be run "
        "again to complete it"
    ]


def _nothing(arguments: Any, config: RunConfig, notes: Sequence[str] = ()) -> int:
    for note in notes:
        terminal.print_line(f"note: {note}", stderr=True)
    terminal.print_line(f"no dead letters at {config.dead_letters_path}*: nothing to replay", stderr=True)
    if arguments.json:
        terminal.print_line("{}")
    return command.OK


def _refuse_services(config: RunConfig) -> None:
    """Raises ConfigError unless dead letters are files, and the output is files or the table of a batch run."""
    from pipelines.config.bigquery import BigQueryOutput
    from pipelines.config.errors import ConfigError

    problems = []
    if config.model.type == "batch_job":
        problems.append(
            "model.type: replay does not run a batch prediction job; call the same model another way for these rows: "
            '--set \'model={"type": "saved_model", "path": ...}\', or an endpoint'
        )
    if config.dead_letters.type != "file":
        problems.append(
            f"dead_letters.type: replay reads files, not {config.dead_letters.type}: save the letters as lines of "
            'letters-00000-of-00001.jsonl, and set dead_letters to {"path": "letters"}'
        )
    if isinstance(config.output, BigQueryOutput) and config.is_batch:
        problems += config.output.unfit(is_batch=True)
    elif config.output.type != "file":
        problems.append(
            f"output.type: replay writes files, and rows of batch runs to BigQuery, not rows of a stream to "
            f"{config.output.type}: set output to "
            '{"type": "file", "format": "json", "path": "out/replayed"}, for example'
        )
    if problems:
        raise ConfigError(problems)


if __name__ == "__main__":
    sys.exit(main())
