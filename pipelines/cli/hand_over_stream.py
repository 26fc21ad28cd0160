"""Builds, checks and hands over a stream whose workers are elsewhere; the job runs on without this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from model.quiet import quiet_imports
from pipelines.cli import command
from pipelines.cli.beam_flags import has_other_processes, is_dataflow, is_set
from pipelines.config.console import ConsoleOutput
from pipelines.config.errors import ConfigError
from pipelines.config.pubsub import PubSubSource
from pipelines.config.registry import StreamSource
from pipelines.connectors.run import StreamRun, stream_run
from pipelines.engine import job_server
from pipelines.formats import row_reader_class
from pipelines.plan import Plan


def is_elsewhere(flags: Sequence[str]) -> bool:
    """Tells whether Beam's flags name a runner, or workers, of other processes."""
    return is_dataflow(flags) or has_other_processes(flags)


def launch(plan: Plan, source: StreamSource, flags: list[str]) -> int:
    """Builds a plan's job and hands it over, or only builds it with --dry_run; gives the exit code."""
    is_native = is_dataflow(flags)
    _refuse(plan, source, is_native)
    dry_run = is_set(flags, "dry_run")
    if not is_native:
        job_server.check_flags(flags)
    with stream_run(plan, source, is_native, looks=not dry_run) as run:
        if not dry_run:
            run.check()
        return _hand_over(run, source.describe(), flags)


def _hand_over(run: StreamRun, description: str, flags: list[str]) -> int:
    plan = run.plan
    out, err = command.consoles()
    for note in plan.notes:
        err.print(note if note.startswith("warning: ") else f"note: {note}")
    if plan.config.batching.latency_budget_ms is not None:
        err.print(
            "warning: batching.latency_budget_ms: workers of other processes go by batching.max_rows and max_wait_ms"
        )
    err.print(f"{plan.config.name}: {description}; loading Beam ...")
    with quiet_imports():
        from pipelines.beam_fixes import shared_readers
        from pipelines.engine import common, failures, options
        from pipelines.flows import stream as flow

    shared_readers.share()
    given = options.options_from([*flags, "--streaming"])
    dry_run = options.is_dry_run(given)
    if options.is_remote_runner(given):
        from pipelines.engine import dataflow

        dataflow.set_defaults(given, flags, plan)
    problems = options.check_options(given)
    unreachable = options.unreachable_paths(plan) if options.is_on_other_machines(given) else []
    for problem in unreachable if dry_run else []:
        err.print(f"warning: {problem}")
    problems += [] if dry_run else unreachable
    if problems:
        raise ConfigError(problems)
    if options.is_remote_runner(given) and not dry_run:
        dataflow.require_places(given)
        dataflow.check_update(given)
    reader = row_reader_class(plan.config.source.reads)(plan.read)
    # Dataflow drops repeats itself: its workers do not share their memories.
    whole = dataclasses.replace(plan, config=plan.config.model_copy(update={"dedupe": None}))
    read = run.source.read(plan.config.batching, plan.config.output.passes_attributes)

    def build(pipeline: Any) -> None:
        flow.build(pipeline, dataclasses.replace(run, plan=whole), read, reader, True)

    if dry_run:
        return common.dry_run(given, build, out)
    for line in run.recover():
        err.print(f"note: {line}")
    try:
        started = common.hand_over(given, build)
    except failures.RunFailedError as error:
        return command.run_failed(error)
    out.print(started)
    return command.OK


def _refuse(plan: Plan, source: StreamSource, native: bool) -> None:
    """Raises ConfigError for what workers of other processes cannot do."""
    problems = []
    if isinstance(plan.config.output, ConsoleOutput):
        problems.append("output.type: the console is of this process, and the workers are not")
    if not native and plan.config.dedupe is not None:
        problems.append("dedupe: only workers in this process, and Dataflow, remember keys")
    if isinstance(source, PubSubSource):
        if native and (source.messages or source.duration_s):
            problems.append("source.messages, source.duration_s: Dataflow reads without end; drain the job to end it")
        if native and plan.config.dedupe is not None and source.key_attribute is None:
            problems.append("dedupe: Dataflow drops repeats of an attribute; give source.key_attribute")
        if not native and source.topic:
            problems.append("source.topic: its subscription would end with this command; give a subscription")
    elif native:
        problems.append(f"source.type: on Dataflow a stream comes from pubsub, not from {source.type}")
    if problems:
        raise ConfigError(problems)
