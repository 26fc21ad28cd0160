"""Takes a plan to an exit code where a batch prediction job calls the model: prepare, submit, wait, join."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from inference.job.result_lines import ResultForm
from inference.job.service import BatchJobService, JobStatus
from model import terminal
from model.quiet import quiet_imports
from model.secrets import masked
from model.signals import ended_by_signal
from pipelines import process_state
from pipelines.cli import command, run_batch
from pipelines.cli.beam_flags import is_set
from pipelines.cli.job_report import JobReport
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.errors import ConfigError
from pipelines.connectors import registry
from pipelines.connectors.batch_job import client, steps
from pipelines.connectors.batch_job.folder import Prepared, folder_of
from pipelines.connectors.batch_job.request import RequestMaker, too_many
from pipelines.connectors.files.publishing import lock
from pipelines.cost import batch_job as costs
from pipelines.plan import Plan

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

_STEPS = ("prepare", "submit", "wait", "join")
# What a command that is stopped has left for the next one.
_NOTHING = "nothing was submitted; the same command begins anew"
_PREPARED = "rows are prepared, and a job may be submitted: the same command looks for it and goes on"


def execute(plan: Plan, arguments: Any, flags: list[str], started: float) -> int:
    """Runs the steps of a job, all or the one that is asked for, and prints what was done.

    Args:
      plan: what to do.
      arguments: of the command line, parsed.
      flags: the rest of the command line, for Beam.
      started: time.monotonic() at the start of the command.
    """
    run = JobRun(plan, arguments, flags, started)
    try:
        return run.cancel() if arguments.cancel else run.steps()
    except client.JobServiceError as error:
        terminal.print_error(masked(str(error)))
        return command.FAILED


class JobRun:
    """Does the steps of one job.

    Args:
      plan: what to do.
      arguments: of the command line, parsed.
      flags: the rest of the command line, for Beam.
      started: time.monotonic() at the start of the command.
    """

    def __init__(self, plan: Plan, arguments: Any, flags: list[str], started: float) -> None:
        assert isinstance(plan.config.model, BatchJobConfig)
        self._config = plan.config.model
        self._plan = plan
        self._arguments = arguments
        self._flags = flags
        self._started = started
        self._out, self._err = command.consoles()
        self._folder = folder_of(plan)
        self._report = JobReport(plan, self._folder, arguments, started)
        self._wanted = (arguments.step,) if arguments.step else _STEPS[: 2 if arguments.detach else 4]
        self._left = _NOTHING

    def cancel(self) -> int:
        """Asks the service to end the job."""
        submitted = self._folder.submitted()
        if submitted is None or not submitted.resource:
            raise ConfigError([f"--cancel: no job of this config over this input was submitted ({self._folder.path})"])
        service = self._service
        try:
            status = steps.look_at(self._config, submitted.resource, service)
            was_final = status.state.is_final
            if not was_final:
                with client.explained(self._config):
                    service.cancel(submitted.resource)
                status = steps.look_at(self._config, submitted.resource, service)
        except steps.JobEndedError as error:
            terminal.print_error(masked(str(error)))
            return command.FAILED
        did = "has ended already" if was_final else "is told to end"
        self._report.step("cancel", job=status, line=f"the job {status.resource} {did}; it is {status.said}")
        return command.OK

    def steps(self) -> int:
        """Does the steps that are wanted, and are not done."""
        self._say_notes()
        if is_set(self._flags, "dry_run"):
            return self._dry_run()
        # Known before anything is paid.
        run_batch.check_places(self._plan, registry.batch_sink(self._plan))
        self._make_folder()
        with self._held() as held, ended_by_signal(lambda: self._given_up(held)):
            return self._steps()

    def _given_up(self, held: lock.Lock) -> str:
        """Lets the folder go for the command that comes next; says what is left for it."""
        held.release()
        return self._left

    def _say_notes(self) -> None:
        for note in self._plan.notes:
            self._err.print(note if note.startswith("warning: ") else f"note: {note}")

    def _make_folder(self) -> None:
        try:
            self._folder.make()
        except OSError as error:
            raise ConfigError(
                [f"model.folder: {self._folder.path} cannot be made: {error.strerror or error}"]
            ) from None

    def _dry_run(self) -> int:
        """Builds the preparation, without running it."""
        options = self._options(self._plan)
        with quiet_imports():
            from pipelines.engine import common
            from pipelines.flows.batch import limit_of
            from pipelines.flows.batch_job import prepare
        plan, limit = self._plan, limit_of(self._plan)
        build = partial(prepare.build, plan=plan, folder=self._folder, limit=limit, request=self._request)
        return common.dry_run(options, build, self._out)

    def _steps(self) -> int:
        prepared = self._folder.prepared()
        if prepared is None:
            if self._wanted[0] != "prepare":
                raise self._not_prepared()
            made = self._prepare()
            if isinstance(made, int):
                return made
            prepared = made
        elif "prepare" in self._wanted:
            self._err.print(f"prepared already: {prepared.amount}, in {self._folder.path}")
        self._left = _PREPARED
        is_all = self._wanted == ("prepare",)
        if is_all:
            line = f"prepared: {prepared.amount}, in {self._folder.instances}"
            self._report.step("prepare", prepared, line=line)
        code = self._too_many(prepared)
        if is_all or code != command.OK:
            return code
        status = None
        if prepared.instances:
            try:
                status = self._job(prepared)
            except (steps.JobEndedError, steps.JobRunningError) as error:
                terminal.print_error(masked(str(error)))
                return command.FAILED
        if self._wanted[-1] != "join":
            step = self._wanted[-1]
            line = f"the job {status.resource} is {status.said}" if status else "there are no rows: no job is needed"
            self._report.step(step, prepared, status, line=line)
            return command.OK
        return self._join(prepared, status)

    def _not_prepared(self) -> ConfigError:
        return ConfigError([f"--step {self._wanted[0]}: nothing is prepared for this config; --step prepare first"])

    def _prepare(self) -> Prepared | int:
        """Prepares; returns what was prepared, or the exit code if that failed."""
        process_state.reset()
        plan = replace(self._plan, run_id=uuid.uuid4().hex[:8])
        self._err.print(f"{plan.config.name}: {run_batch.amount(plan, False)}; loading Beam ...")
        options = self._options(plan)
        with quiet_imports():
            from pipelines.engine import batch_job as engine
            from pipelines.engine import failures
        self._err.print("step prepare: rows become instances")
        with self._timed("prepare"):
            try:
                prepared = engine.prepare(plan, options, self._folder, self._request, self._err)
            except failures.RunFailedError as error:
                return command.run_failed(error)
        self._err.print(
            f"{prepared.amount}, {prepared.instance_bytes / 1e6:,.1f} MB, in {self._folder.instances}; "
            f"{prepared.rows_dead_lettered:,} row{'s' * (prepared.rows_dead_lettered != 1)} dead-lettered"
        )
        return prepared

    def _too_many(self, prepared: Prepared) -> int:
        """Returns the exit code: too many rows may have been refused for the run to be paid for."""
        problem = too_many(self._folder, prepared, self._plan.config.dead_letters.max_fraction)
        if not problem:
            return command.OK
        terminal.print_error(problem)
        return command.INCOMPLETE

    def _job(self, prepared: Prepared) -> JobStatus:
        """Submits the job, or finds it, and waits for it, as far as that is wanted."""
        service = self._service
        submitted = self._folder.submitted()
        known = submitted is not None and bool(submitted.resource)
        if "submit" not in self._wanted and not known:
            raise ConfigError([f"--step {self._wanted[0]}: no job was submitted for this config; --step submit first"])
        if "submit" in self._wanted:
            if not known or self._arguments.resubmit:
                self._check_cost(prepared)
            with self._timed("submit"):
                status, is_new = steps.submit(
                    self._config, self._plan.config.name, self._folder, prepared, service, self._arguments.resubmit
                )
            self._err.print(
                f"step submit: the job {status.resource} {'is submitted' if is_new else 'was there already'}"
            )
        else:
            assert submitted is not None
            status = steps.look_at(self._config, submitted.resource, service)
        self._left = steps.left_by(status)
        if "wait" in self._wanted:
            with self._timed("wait"):
                status = steps.wait(self._config, status.resource, service, self._tell, self._note)
            self._left = steps.left_by(status)
            return status
        if "join" in self._wanted and not status.state.has_results:
            if status.state.is_final:
                raise steps.JobEndedError(steps.why_ended(status))
            raise steps.JobRunningError(f"the job {status.resource} is {status.said}; --step wait waits for its end")
        return status

    def _join(self, prepared: Prepared, status: JobStatus | None) -> int:
        with quiet_imports():
            from pipelines.engine import batch as batch_engine
            from pipelines.engine import batch_job as engine
            from pipelines.engine import common, failures
            from pipelines.engine.options import runner_name
            from pipelines.flows import batch as batch_flow
            from pipelines.flows.batch_job import join as join_flow
        process_state.reset()
        self._left = ""  # of the output, the reservation says what becomes of it
        plan = engine.joined_plan(replace(self._plan, run_id=uuid.uuid4().hex[:8]), prepared)
        # Of the rows' source: an earlier run is known by it, and not by how many instances there are.
        sink = registry.batch_sink(replace(self._plan, run_id=plan.run_id))
        with run_batch.reservation(plan) as reserved:
            code = run_batch.prepare_sink(self._plan, sink, self._arguments, reserved)
            if code is not None:
                return code
            for note in reserved.notes:
                self._err.print(f"note: {note}")
            options = self._options(plan)
            reserved.claim()
            with quiet_imports():
                common.import_libraries(options, plan)
            try:
                join = engine.make_join(plan, self._folder, prepared, status, self._form(plan))
            except steps.JobEndedError as error:
                terminal.print_error(masked(str(error)))
                return command.FAILED
            self._err.print(f"step join: results to rows, on {runner_name(options)}")
            self._folder.remove_sorted_results()
            output = plan.config.output_path
            target = batch_flow.target_of(plan, sink)
            with self._timed("join"):
                try:
                    summary = batch_engine.run(
                        plan,
                        options,
                        lambda pipeline: join_flow.build(pipeline, plan, join, target, sink),
                        output,
                        reserved,
                        self._err,
                        self._started,
                        self._report.prices,
                        sink,
                    )
                except failures.RunFailedError as error:
                    return command.run_failed(error)
                finally:
                    self._folder.remove_sorted_results()
            code = run_batch.show(self._report.with_job(summary, status), self._arguments, self._out)
            if sink is not None:
                reserved.reported()
            return code

    def _form(self, plan: Plan) -> ResultForm:
        return self._service.form(tuple(spec for spec in plan.signature.outputs if spec.name in plan.model_outputs))

    def _check_cost(self, prepared: Prepared) -> None:
        """Says what the job is expected to cost. Raises ConfigError: more than it may."""
        estimate = costs.estimated(self._config, prepared.instances, self._report.prices)
        self._err.print(f"estimated cost: {estimate.in_words()}")
        problems = costs.over(self._config, estimate)
        if problems:
            raise ConfigError(problems)

    @cached_property
    def _service(self) -> BatchJobService:
        """The service that runs the job."""
        return client.service_of(self._config, self._note)

    @property
    def _request(self) -> RequestMaker:
        """Makes what the folder says of the job."""
        return RequestMaker.of(self._plan, self._report.prices)

    def _options(self, plan: Plan) -> PipelineOptions:
        return run_batch.checked_options(plan, self._flags, self._err)

    @contextmanager
    def _held(self) -> Iterator[lock.Lock]:
        """Holds the folder: one command at a time prepares, submits, waits and joins."""
        try:
            held = lock.acquire(self._folder.path, lock.Holder.this_process(self._plan.run_id, self._plan.config.name))
        except lock.InUseError as error:
            raise ConfigError(
                [f"model.folder: {error} is at work on the same job ({self._folder.path}); wait until it has ended"]
            ) from None
        except OSError as error:
            raise ConfigError([f"model.folder: {self._folder.path} cannot be locked: {error}"]) from None
        try:
            yield held
        finally:
            held.release()

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._report.seconds[step] = time.monotonic() - begun

    def _tell(self, status: JobStatus) -> None:
        counts = [(status.succeeded, "predicted"), (status.failed, "refused")]
        said = "".join(f", {count:,} {what}" for count, what in counts if count)
        self._err.print(f"step wait: {status.said}{said}", highlight=False)

    def _note(self, line: str) -> None:
        self._err.print(masked(line), highlight=False, soft_wrap=True)
