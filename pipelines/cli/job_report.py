"""Tells of a batch prediction job: after a step, and in the closing summary."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import cached_property
from typing import Any

from inference.job.service import JobState, JobStatus
from model import terminal
from pipelines.cli import command
from pipelines.config.batch_job import BatchJobConfig
from pipelines.connectors.batch_job.folder import JobFolder, Prepared
from pipelines.cost import batch_job as costs
from pipelines.cost.prices import Prices
from pipelines.cost.prices import load as load_prices
from pipelines.plan import Plan
from pipelines.telemetry.batch_job import BatchJobAccount
from pipelines.telemetry.summary import Summary


class JobReport:
    """Collects what is to be said of the steps of a job.

    Args:
      plan: what is done.
      folder: of the job.
      arguments: of the command line, parsed.
      started: time.monotonic() at the start of the command.

    Attributes:
      seconds: how long each step took, of those that were done now.
    """

    def __init__(self, plan: Plan, folder: JobFolder, arguments: Any, started: float) -> None:
        assert isinstance(plan.config.model, BatchJobConfig)
        self._plan = plan
        self._model = plan.config.model
        self._folder = folder
        self._arguments = arguments
        self._started = started
        self.seconds: dict[str, float] = {}

    @cached_property
    def prices(self) -> Prices:
        """Returns the prices that the command line names, or the packaged ones."""
        return load_prices(getattr(self._arguments, "prices", None))

    def with_job(self, summary: Summary, status: JobStatus | None) -> Summary:
        """Returns the summary of all steps that this command did."""
        seconds = sum(self.seconds.values())
        startup = max(0.0, time.monotonic() - self._started - seconds)
        rate = summary.rows_read / seconds if seconds else 0.0
        partial = status is not None and status.state is JobState.PARTIAL
        notes = (*summary.notes, *(["the job did not try all rows: those without a result are dead letters"] * partial))
        return replace(
            summary,
            seconds=seconds,
            startup_seconds=startup,
            rows_per_second=rate,
            batch_job=replace(self._account(status), seconds=self.seconds),
            notes=notes,
        )

    def _account(self, status: JobStatus | None) -> BatchJobAccount:
        """Says what the service tells of the job."""
        if status is None:
            return BatchJobAccount(self._folder.path)
        hours = status.node_hours
        return BatchJobAccount(
            self._folder.path,
            status.resource,
            status.said,
            status.succeeded,
            status.failed,
            hours,
            costs.priced(self._model, hours, self.prices) if hours else None,
        )

    def step(
        self, step: str, prepared: Prepared | None = None, job: JobStatus | None = None, *, line: str = ""
    ) -> None:
        """Says what a step has done, where the run does not go on to its end."""
        if not self._arguments.json:
            command.consoles()[0].print(f"{self._plan.config.name}: {line}", highlight=False, soft_wrap=True)
            return
        found: dict[str, Any] = {"name": self._plan.config.name, "step": step}
        if prepared is not None:
            found |= {
                "rows_read": prepared.rows_read,
                "instances": prepared.instances,
                "rows_dead_lettered": prepared.rows_dead_lettered,
                "steps_s": {name: round(taken, 3) for name, taken in self.seconds.items()},
            }
        terminal.print_line(json.dumps(found | {"batch_job": self._account(job).findings()}))
