"""Takes a plan to an exit code, for `pipelines.batch` and `pipelines.replay`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from model import terminal
from model.quiet import quiet_imports
from model.signals import ended_by_signal
from pipelines import process_state
from pipelines.cli import command
from pipelines.cli.beam_flags import is_dataflow
from pipelines.config.bigquery import BigQueryOutput
from pipelines.config.errors import ConfigError
from pipelines.config.run import RunConfig
from pipelines.connectors.files.publishing import commit, shards
from pipelines.connectors.files.publishing.reservation import Reservation, in_the_way
from pipelines.cost.prices import load as load_prices
from pipelines.engine import job_server
from pipelines.plan import Plan
from pipelines.planning import model as models
from pipelines.planning.output_places import folder_mode, places
from pipelines.storage import FileInfo

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.connectors.base import BatchSinkConnector
    from pipelines.telemetry.summary import Summary


_PUBLISHING_S = 10.0
"""How long a signal waits for publishing that has begun."""


@contextmanager
def reservation(plan: Plan) -> Iterator[Reservation]:
    """Holds the places that a plan's run publishes to, while the block executes it; Ctrl-C and SIGTERM give them up."""
    output, dead_letters = places(plan.config)
    reserved = Reservation(output, dead_letters, plan.run_id, plan.config.name, folder_mode(plan.config))
    with reserved, ended_by_signal(lambda: _given_up(reserved)):
        yield reserved


def _given_up(reserved: Reservation) -> str:
    """Removes the temporary files of a run that is stopped; says what became of its output."""
    commit.refuse_further(_PUBLISHING_S)
    became = reserved.abandon()
    reserved.release()
    return became


def execute(
    plan: Plan,
    arguments: Any,
    flags: list[str],
    started: float,
    reserved: Reservation | None,
    sink: BatchSinkConnector | None = None,
    replayed: list[FileInfo] | None = None,
) -> int:
    """Runs a plan, or the dead letters `replayed` by it, and prints the summary.

    Args:
      plan: what to do.
      arguments: of the command line, parsed.
      flags: the rest of the command line, for Beam.
      started: time.monotonic() at the start of the command.
      reserved: the places that the run publishes to; None for a dry run or a template.
      sink: takes over the output; None if that is files.
      replayed: shards of dead letters to run instead of the plan's files.
    """
    process_state.reset()
    job_server.check_flags(flags)
    named = getattr(arguments, "prices", None)
    prices = load_prices(named) if named or is_dataflow(flags) else None
    out, err = command.consoles()
    for note in (*plan.notes, *(reserved.notes if reserved else ())):
        err.print(note if note.startswith("warning: ") else f"note: {note}")
    err.print(f"{plan.config.name}: {amount(plan, bool(replayed))}; loading Beam and TensorFlow ...")
    with quiet_imports():
        models.open_library_ahead(plan.model)
        from pipelines.engine import batch as engine
        from pipelines.engine import common, failures, options

    given = checked_options(plan, flags, err)
    dry_run = options.is_dry_run(given)
    build, output = _flow(plan, sink, replayed, is_attended=reserved is not None)
    if dry_run:
        return common.dry_run(given, build, out)
    if reserved is None:
        return _hand_over(plan, sink, given, build, out)
    reserved.claim(replayed or (), output if replayed else "")
    with quiet_imports():
        common.import_libraries(given, plan)
    err.print(f"running on {options.runner_name(given)}")
    try:
        summary = engine.run(plan, given, build, output, reserved, err, started, prices, sink)
    except failures.RunFailedError as error:
        return command.run_failed(error)
    code = show(summary, arguments, out)
    if sink is not None:
        reserved.reported()
    return code


def check_places(plan: Plan, sink: BatchSinkConnector | None) -> None:
    """Raises ConfigError if a run could not publish: something is in the way, or a service would refuse the output."""
    problems = [problem for place in places(plan.config) for problem in in_the_way(place)]
    if problems:
        raise ConfigError(problems)
    if sink is not None:
        sink.check()


def checked_options(plan: Plan, flags: list[str], err: Any) -> PipelineOptions:
    """Returns the options of a job for a runner, with what Dataflow should have.

    Args:
      plan: what to do.
      flags: of the command line, for Beam.
      err: console for warnings.

    Raises:
      ConfigError: they are wrong, or workers do not reach what the config names.
    """
    with quiet_imports():
        from pipelines.engine import options

    given = options.options_from(flags)
    dry_run = options.is_dry_run(given)
    problems = options.check_options(given)
    if options.is_remote_runner(given):
        from pipelines.engine import dataflow

        dataflow.set_defaults(given, flags, plan)
        unreachable = options.unreachable_paths(plan)
        problems += [] if dry_run else unreachable
        for problem in unreachable if dry_run else []:
            err.print(f"warning: {problem}")
        # Not before all is right that can be known without the cloud.
        if not dry_run and not problems:
            dataflow.require_places(given)
            dataflow.check_update(given)
            for note in dataflow.region_notes(given, plan):
                err.print(note)
    if problems:
        raise ConfigError(problems)
    return given


def show(summary: Summary, arguments: Any, out: Any) -> int:
    """Gives the account of a run; returns the exit code."""
    from pipelines.telemetry.summary import print_summary

    if arguments.json:
        terminal.print_line(summary.to_json())
    else:
        print_summary(out, summary)
    for problem in summary.problems():
        terminal.print_error(problem)
    return command.OK if summary.ok else command.INCOMPLETE


def amount(plan: Plan, is_replay: bool) -> str:
    """Returns what is read, and how much it is, in words."""
    if plan.extent is not None and not is_replay:
        source: Any = plan.config.source
        return f"{source.describe()}, {plan.nbytes / 1e6:,.1f} MB" if plan.nbytes else str(source.describe())
    what = "file of dead letters" if is_replay else "file"
    what = what.replace("file", "files") if len(plan.files) != 1 else what
    return f"{len(plan.files):,} {what}, {sum(file.size for file in plan.files) / 1e6:,.1f} MB"


def _hand_over(
    plan: Plan,
    sink: BatchSinkConnector | None,
    given: PipelineOptions,
    build: Callable[[beam.Pipeline], None],
    out: Any,
) -> int:
    """Writes the template of a job that nobody here waits for; returns the exit code."""
    from pipelines.engine import common, failures

    check_places(plan, sink)
    try:
        started = common.hand_over(given, build)
    except failures.RunFailedError as error:
        return command.run_failed(error)
    out.print(started)
    return command.OK


def _flow(
    plan: Plan, sink: BatchSinkConnector | None, replayed: list[FileInfo] | None, *, is_attended: bool
) -> tuple[Callable[[beam.Pipeline], None], str]:
    """Returns what adds the flow to a pipeline, and the prefix of the output's shards."""
    from pipelines.connectors.files.publishing.step import PublishTarget
    from pipelines.flows import batch as flow

    output = plan.config.output_path
    if replayed is None:
        unattended = () if is_attended else places(plan.config)
        return lambda pipeline: flow.build(pipeline, plan, sink, unattended), output
    from pipelines.connectors.files.replay_source import ReadDeadLetters, identity
    from pipelines.formats import row_reader_class

    named = shards.replay_prefix(output, identity(replayed))
    order = sink.order() if sink else None
    reader = row_reader_class(plan.config.source.reads)(plan.read)
    read = ReadDeadLetters(replayed, reader, flow.dead_letters_of(plan))
    replaced = tuple(dead_letters.path.rpartition("/")[2] for dead_letters in replayed)
    dead_letters = plan.config.dead_letters_path
    target = PublishTarget(plan.run_id, plan.config.name, output, named, dead_letters, replaced, order=order)
    return lambda pipeline: flow.connect(pipeline, plan, read, target, sink), named


def prepare_sink(plan: Plan, sink: BatchSinkConnector | None, arguments: Any, reserved: Reservation) -> int | None:
    """Looks at the service that takes over the output, if one does, before anything is read.

    Returns:
      The exit code if an earlier run of the same config over the same input was stopped before it gave its account,
      and is completed now: then its account is given, and nothing is done again. Else None.

    Raises:
      ConfigError: the service would refuse the output.
    """
    if sink is None:
        return None
    code = earlier_account(plan, sink, arguments, reserved, "write them once more")
    if code is None:
        sink.check()
    return code


def earlier_account(
    plan: Plan, sink: BatchSinkConnector, arguments: Any, reserved: Reservation, further: str
) -> int | None:
    """Gives the account of an earlier run of the same command that was stopped before it could give it itself.

    Args:
      plan: what to do.
      sink: takes over the output.
      arguments: of the command line, parsed.
      reserved: the places that the run publishes to.
      further: what the command does when it is run once more, after "to".

    Returns:
      The exit code; None if there was no such run.
    """
    earlier = reserved.unreported(sink.order().fingerprint)
    if earlier is None:
        return None
    from pipelines.telemetry.summary import of_earlier_run

    out, err = command.consoles()
    for note in reserved.notes:
        err.print(f"note: {note}")
    dead_letters = shards.pattern(plan.config.dead_letters_path, 1, "jsonl") if earlier.rows_dead_lettered else ""
    allowed = plan.config.dead_letters.max_fraction
    summary = of_earlier_run(earlier, sink.describe(), dead_letters, allowed, further)
    code = show(summary, arguments, out)
    reserved.reported()
    return code


def refuse_streams(config: RunConfig) -> None:
    """Raises ConfigError for a config whose run has no end, or whose output is only to be looked at."""
    problems = []
    if not config.is_batch:
        problems.append(f"source.type: {config.source.type} is a stream: run python -m pipelines.stream")
    if isinstance(config.output, BigQueryOutput):
        problems += config.output.unfit(is_batch=True)
    elif config.output.type != "file":
        problems.append(f"output.type: {config.output.type} is for streams: give a file")
    if config.dead_letters.type != "file":
        problems.append(f"dead_letters.type: {config.dead_letters.type} is for streams: leave it out, and give a path")
    if config.dedupe is not None:
        problems.append("dedupe: is for streams: remove it")
    if problems:
        raise ConfigError(problems)
