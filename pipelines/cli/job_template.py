"""Writes the template of a step of a batch prediction job that Dataflow runs, and that no command waits for."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from inference.job.service import LABEL
from model import terminal
from model.quiet import quiet_imports
from model.secrets import masked
from pipelines import process_state
from pipelines.cli import command, run_batch
from pipelines.cli.run_batch_job import JobRun
from pipelines.config.errors import ConfigError
from pipelines.connectors import registry
from pipelines.connectors.batch_job import client, steps
from pipelines.connectors.batch_job.folder import Prepared
from pipelines.plan import Plan
from pipelines.planning.output_places import places

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

_STEPS = ("prepare", "join")


def write(plan: Plan, arguments: Any, flags: list[str], started: float) -> int:
    """Writes a template; returns the exit code.

    Args:
      plan: what to do.
      arguments: of the command line, parsed.
      flags: the rest of the command line, for Beam.
      started: time.monotonic() at the start of the command.

    Raises:
      ConfigError: it is not for a step that Dataflow runs, or that step is not to be done now.
    """
    if arguments.step not in _STEPS:
        raise ConfigError(
            [
                "--template_location: a template is one step of a batch prediction job; give --step prepare or "
                "--step join (submit and wait need no Dataflow: run them without a template)"
            ]
        )
    process_state.reset()
    try:
        return _JobTemplate(replace(plan, run_id=uuid.uuid4().hex[:8]), arguments, flags, started).write()
    except (client.JobServiceError, steps.JobEndedError, steps.JobRunningError) as error:
        terminal.print_error(masked(str(error)))
        return command.FAILED


class _JobTemplate(JobRun):
    """Writes the template of one step, as of the moment: a join has the results that there are now."""

    def write(self) -> int:
        self._say_notes()
        sink = registry.batch_sink(self._plan)
        run_batch.check_places(self._plan, sink)
        self._make_folder()
        with self._held():
            prepared = self._folder.prepared()
            if self._wanted == ("prepare",):
                return self._preparation(prepared)
            if prepared is None:
                raise self._not_prepared()
            code = self._too_many(prepared)
            return self._joining(prepared) if code == command.OK else code

    def _options(self, plan: Plan) -> PipelineOptions:
        """Returns the options of the Dataflow job, which tells by a label in which folder it works."""
        options = super()._options(plan)
        with quiet_imports():
            from pipelines.engine import dataflow
        dataflow.add_label(options, LABEL, self._folder.identity)
        return options

    def _preparation(self, prepared: Prepared | None) -> int:
        options = self._options(self._plan)
        with quiet_imports():
            import apache_beam as beam

            from pipelines.flows.batch import limit_of
            from pipelines.flows.batch_job import prepare
        if prepared is not None:
            self._err.print(f"prepared already: {prepared.amount}, in {self._folder.path}; the job does nothing")
            self._folder.write_request(self._request.make(self._folder, prepared))
            # A launcher takes a command that writes no template for one that has failed.
            return _handed_over(options, lambda pipeline: pipeline | "Nothing" >> beam.Create([]), self._out)
        self._folder.clear_prepared()
        self._folder.make_parts(self._plan.run_id)
        plan, limit = self._plan, limit_of(self._plan)
        build = partial(prepare.build, plan=plan, folder=self._folder, limit=limit, request=self._request)
        return _handed_over(options, build, self._out)

    def _joining(self, prepared: Prepared) -> int:
        status = self._job(prepared) if prepared.instances else None
        with quiet_imports():
            from pipelines.engine import batch_job as engine
            from pipelines.flows import batch as batch_flow
            from pipelines.flows.batch_job import join as join_flow
        plan = engine.joined_plan(self._plan, prepared)
        sink = registry.batch_sink(self._plan)
        options = self._options(plan)
        join = engine.make_join(plan, self._folder, prepared, status, self._form(plan))
        self._folder.remove_sorted_results()
        target = batch_flow.target_of(plan, sink, places(plan.config))
        return _handed_over(options, lambda pipeline: join_flow.build(pipeline, plan, join, target, sink), self._out)


def _handed_over(options: PipelineOptions, build: Callable[[beam.Pipeline], Any], out: Any) -> int:
    from pipelines.engine import common, failures

    try:
        out.print(common.hand_over(options, build))
    except failures.RunFailedError as error:
        return command.run_failed(error)
    return command.OK
