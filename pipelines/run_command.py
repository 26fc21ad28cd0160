"""From a plan to an exit code: what `pipelines.batch` and `pipelines.replay` do alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from model import terminal
from pipelines import cli, job_server, models
from pipelines.config import ConfigError, FileSource, RunConfig
from pipelines.files import FileInfo
from pipelines.output_places import folder_mode, places
from pipelines.plan import Plan
from pipelines.publishing import shards
from pipelines.publishing.reservation import Reservation

if TYPE_CHECKING:
    import apache_beam as beam


def reservation(plan: Plan) -> Reservation:
    """The places that a plan's run publishes to, to be entered before it is executed."""
    output, dead_letters = places(plan.config)
    return Reservation(output, dead_letters, plan.run_id, plan.config.name, folder_mode(plan.config))


def execute(
    plan: Plan,
    arguments: Any,
    flags: list[str],
    started: float,
    reserved: Reservation | None,
    replayed: list[FileInfo] | None = None,
) -> int:
    """Runs a plan, or the dead letters `replayed` by it, and prints the summary.

    Args:
      plan: what to do.
      arguments: of the command line, parsed.
      flags: the rest of the command line, for Beam.
      started: time.monotonic() at the start of the command.
      reserved: the places that the run publishes to; None for a dry run.
      replayed: shards of dead letters to run instead of the plan's files.
    """
    job_server.check_flags(flags)
    out, err = cli.consoles()
    for note in (*plan.notes, *(reserved.notes if reserved else ())):
        err.print(note if note.startswith("warning: ") else f"note: {note}")
    what = "file of dead letters" if replayed else "file"
    what = what.replace("file", "files") if len(plan.files) != 1 else what
    size = sum(file.size for file in plan.files) / 1e6
    err.print(f"{plan.config.name}: {len(plan.files):,} {what}, {size:,.1f} MB; loading Beam and TensorFlow ...")
    with cli.quiet_imports():
        models.open_library_ahead(plan.model)
        from pipelines import engine, options, report

    given = options.options_from(flags)
    dry_run = options.is_dry_run(given)
    problems = options.check_options(given)
    if options.is_remote_runner(given):
        unreachable = options.unreachable_paths(plan)
        problems += [] if dry_run else unreachable
        for problem in unreachable if dry_run else []:
            err.print(f"warning: {problem}")
    if problems:
        raise ConfigError(problems)
    build, output = _flow(plan, replayed)
    if dry_run or reserved is None:
        return engine.dry_run(given, build, out)
    reserved.claim(replayed or (), output if replayed else "")
    with cli.quiet_imports():
        engine.import_libraries(given, plan)
    err.print(f"running on {options.runner_name(given)}")
    try:
        summary = engine.run(plan, given, build, output, reserved, err, started)
    except engine.RunFailedError as error:
        if error.details:
            terminal.print_text(error.details, stderr=True)
        terminal.print_error(str(error))
        return cli.INCOMPLETE if error.incomplete else cli.FAILED
    if arguments.json:
        terminal.print_line(summary.to_json())
    else:
        report.print_summary(out, summary)
    for problem in summary.problems():
        terminal.print_error(problem)
    return cli.OK if summary.ok else cli.INCOMPLETE


def _flow(plan: Plan, replayed: list[FileInfo] | None) -> tuple[Callable[[beam.Pipeline], None], str]:
    """What adds the flow to a pipeline, and the prefix of the output's shards."""
    from pipelines import graph
    from pipelines.publishing.step import Target

    output = plan.config.output.path
    if replayed is None:
        return lambda pipeline: graph.build(pipeline, plan), output
    from pipelines.formats import row_reader_class
    from pipelines.sources.dead_letters import ReadDeadLetters, identity

    named = shards.replay_prefix(output, identity(replayed))
    reader = row_reader_class(plan.config.source.reads)(plan.read)
    read = ReadDeadLetters(replayed, reader, plan.config.dead_letters_path, plan.run_id)
    replaced = tuple(letters.path.rpartition("/")[2] for letters in replayed)
    target = Target(plan.run_id, plan.config.name, output, named, plan.config.dead_letters_path, replaced)
    return lambda pipeline: graph.connect(pipeline, plan, read, target), named


def refuse_streams(config: RunConfig) -> None:
    """Raises ConfigError for a config whose run has no end, or whose output is only to be looked at."""
    problems = []
    if not isinstance(config.source, FileSource):
        problems.append(f"source.type: {config.source.type} is a stream: run python -m pipelines.stream")
    if config.output.type != "file":
        problems.append(f"output.type: {config.output.type} is for streams: give a file")
    if config.dead_letters.type != "file":
        problems.append(f"dead_letters.type: {config.dead_letters.type} is for streams: leave it out, and give a path")
    if config.dedupe is not None:
        problems.append("dedupe: is for streams: remove it")
    if problems:
        raise ConfigError(problems)


def beam_flags(flags: Sequence[str]) -> list[str]:
    """The rest of a command line as Beam takes it: its --dry_run wants a value.

    Raises:
      ConfigError: a word belongs to no option.
    """
    _refuse_strays(flags)
    spelled = [f"--dry_run{flag[9:]}" if flag.startswith("--dry-run") else flag for flag in flags]
    return [
        "--dry_run=True" if flag == "--dry_run" and (spelled[i + 1 :] or ["--"])[0].startswith("--") else flag
        for i, flag in enumerate(spelled)
    ]


def is_set(flags: Sequence[str], name: str) -> bool:
    """Whether a flag of Beam's is on."""
    return any(flag in (f"--{name}", f"--{name}=True", f"--{name}=true") for flag in flags)


def _refuse_strays(flags: Sequence[str]) -> None:
    """The value of an option stands behind it; any other word is a mistake."""
    for before, flag in zip(["", *flags], flags, strict=False):
        if not flag.startswith("-") and (not before.startswith("--") or "=" in before):
            raise ConfigError([cli.stray(flag)])
