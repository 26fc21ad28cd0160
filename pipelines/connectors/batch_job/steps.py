"""Does the steps of a batch prediction job that are the service's: submit and wait. Each can be done again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from inference.job.service import LABEL, BatchJobService, JobOrder, JobStatus
from model.cloud.errors import ServiceError
from pipelines import storage
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.errors import ConfigError
from pipelines.connectors.batch_job import client
from pipelines.connectors.batch_job.folder import JobFolder, Prepared, Submitted

_FIRST_PAUSE_S = 0.25
_SLOWER = 1.5


class JobEndedError(Exception):
    """Raised when a job has ended without results. The message is one line."""


class JobRunningError(Exception):
    """Raised when a job has not ended yet. The message is one line."""


def submit(
    config: BatchJobConfig, name: str, folder: JobFolder, prepared: Prepared, service: BatchJobService, again: bool
) -> tuple[JobStatus, bool]:
    """Submits the job of a folder, or finds that it was.

    Args:
      config: of the model.
      name: of the run.
      folder: of the job.
      prepared: the instances.
      service: that runs it.
      again: whether another job follows one that has ended.

    Returns:
      The job, and whether it was submitted now.

    Raises:
      ConfigError, JobServiceError: the service did not take it.
      JobEndedError: it has ended without results, and is not to be submitted again.
    """
    before = folder.submitted()
    attempt = before.attempt if before is not None else 1
    with client.explained(config):
        if before is not None and before.resource:
            status = _known(service, before.resource)
            if not again:
                if status is None:
                    raise JobEndedError(_forgotten(before.resource))
                if status.state.is_final and not status.state.has_results:
                    raise JobEndedError(why_ended(status))
                return status, False
            if status is not None and not status.state.is_final:
                raise ConfigError(
                    [f"--resubmit: the job {status.resource} is {status.said}; wait for its end, or --cancel it first"]
                )
            attempt += 1
        # Written before: whoever comes after a crash looks for the same job.
        folder.write_submitted(Submitted(attempt=attempt))
        status, is_new = service.submit(order_of(config, name, folder, prepared, attempt))
    folder.write_submitted(Submitted(attempt=attempt, resource=status.resource))
    return status, is_new


def order_of(config: BatchJobConfig, name: str, folder: JobFolder, prepared: Prepared, attempt: int) -> JobOrder:
    """Returns what the job of a folder is to do.

    Args:
      config: of the model.
      name: of the run.
      folder: of the job.
      prepared: the instances.
      attempt: number of the job, the first is 1.
    """
    return JobOrder(
        # Instances that were prepared anew have other keys: an earlier job's results are not theirs.
        name=f"{LABEL}_{folder.identity}_{prepared.run}_{attempt}",
        identity=folder.identity,
        instances=address_of(f"{folder.instances}*"),
        output=address_of(folder.results(attempt)),
        labels={**config.labels, "run": name.lower()[:63]},
    )


def look_at(config: BatchJobConfig, resource: str, service: BatchJobService) -> JobStatus:
    """Returns how a job is.

    Raises:
      ConfigError, JobServiceError: the service does not tell.
      JobEndedError: it does not know the job any more.
    """
    with client.explained(config):
        status = _known(service, resource)
    if status is None:
        raise JobEndedError(_forgotten(resource))
    return status


def wait(
    config: BatchJobConfig,
    resource: str,
    service: BatchJobService,
    tell: Callable[[JobStatus], None],
    note: Callable[[str], None],
) -> JobStatus:
    """Waits until a job has results.

    Args:
      config: of the model.
      resource: name of the job.
      service: that runs it.
      tell: takes each state, or counts of rows, that differ from those before.
      note: takes what goes wrong while the job is looked at, one line each.

    Raises:
      ConfigError: the service refuses the caller, or does not know the job.
      JobEndedError: it has ended without results.
      JobRunningError: it did not end in time.
    """
    until = time.monotonic() + config.deadline_s
    pause = _FIRST_PAUSE_S
    last: tuple[str, int | None, int | None] | None = None
    while True:
        try:
            status = look_at(config, resource, service)
        except client.JobServiceError as error:
            note(str(error))
        else:
            # What is billed grows with each look.
            seen = status.said, status.succeeded, status.failed
            if last != seen:
                tell(status)
            last = seen
            if status.state.has_results:
                return status
            if status.state.is_final:
                raise JobEndedError(why_ended(status))
        left = until - time.monotonic()
        if left <= 0:
            raise JobRunningError(
                f"the job {resource} did not end within {config.deadline_s:g} s (model.deadline_s); it goes on: run "
                "the same command again to wait for it and to join its results"
            )
        time.sleep(min(pause, left))
        pause = min(pause * _SLOWER, config.poll_s)


def _known(service: BatchJobService, resource: str) -> JobStatus | None:
    """How a job is; None if the service does not know it any more."""
    try:
        return service.get(resource)
    except ServiceError as error:
        if error.status == 404:
            return None
        raise


def _forgotten(resource: str) -> str:
    return (
        f"the service does not know the job {resource} any more (a server on this machine forgets its jobs when it "
        "ends); run the same command with --resubmit, which submits a new job over the same instances"
    )


def why_ended(status: JobStatus) -> str:
    """Says why a job has no results, and what to do."""
    said = f": {' '.join(status.message.split())[:500]}" if status.message else ""
    partial = f" ({' '.join(status.partial_failures[0].split())[:200]})" if status.partial_failures else ""
    return (
        f"the job {status.resource} ended as {status.said}{said}{partial}; mend what is wrong, then run the same "
        "command with --resubmit, which submits a new job over the same instances"
    )


def left_by(status: JobStatus) -> str:
    """Says what becomes of a job when Ctrl-C or SIGTERM ends the command."""
    if status.state.is_final:
        return f"the job {status.resource} has ended: run the same command again to join its results"
    return (
        f"the job {status.resource} goes on: run the same command again to wait for it and to join its results, or "
        "with --cancel to end it"
    )


def address_of(path: str) -> str:
    """Returns a path as the service is told it."""
    if storage.is_remote(path):
        return path
    return os.path.abspath(path) + ("/" if path.endswith("/") else "")


def path_of(address: str) -> str:
    """Returns what a service has told as a path."""
    return address.removeprefix("file://")
