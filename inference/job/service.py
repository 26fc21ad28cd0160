"""Defines the interface of services that run batch prediction jobs, and what a job looks like from outside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum

from inference.job.result_lines import ResultForm
from model.cloud.api import Api, Json
from model.cloud.errors import ServiceError
from model.specs import TensorSpec

LABEL = "beam_tf_predict"
"""Label of a job: the identity of the run that it belongs to."""


class JobState(Enum):
    """Says how far a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTIAL = "partially succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Tells whether nothing comes after it."""
        return self not in (JobState.WAITING, JobState.RUNNING)

    @property
    def has_results(self) -> bool:
        """Tells whether there are results to read."""
        return self in (JobState.SUCCEEDED, JobState.PARTIAL)


@dataclass(frozen=True)
class JobOrder:
    """Says what a job is to do.

    Attributes:
      name: of the job; the same order has the same name.
      identity: of the run, for the job's label.
      instances: pattern of the files of instances.
      output: folder for the results; ends in a slash.
      labels: further ones.
    """

    name: str
    identity: str
    instances: str
    output: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobStatus:
    """Describes a job as its service tells it.

    Attributes:
      resource: the job's resource name.
      name: the name that it was given.
      state: how far it is.
      said: the state in the service's own word.
      message: what the service says of a failure; empty if nothing.
      output: folder of the results; empty while there are none.
      succeeded: instances with a prediction so far; None if the service does not tell.
      failed: instances that were refused so far; None if the service does not tell.
      node_hours: what is billed so far; None if the service does not tell.
      partial_failures: what the service says of instances that it could not predict.
      model_version: the version that predicts, if the service tells it.
    """

    resource: str
    name: str
    state: JobState
    said: str
    message: str = ""
    output: str = ""
    succeeded: int | None = None
    failed: int | None = None
    node_hours: float | None = None
    partial_failures: tuple[str, ...] = ()
    model_version: str | None = None


class BatchJobService(ABC):
    """Submits, finds and cancels the jobs of one service.

    Args:
      api: how it is called.
      jobs: path of the jobs in the API.

    Attributes:
      api: as given.
      jobs: as given.
    """

    def __init__(self, api: Api, jobs: str) -> None:
        self.api = api
        self.jobs = jobs

    @abstractmethod
    def form(self, outputs: tuple[TensorSpec, ...]) -> ResultForm:
        """Returns the form of the result lines."""

    @abstractmethod
    def look(self) -> None:
        """Makes calls that cost nothing.

        Raises:
          ServiceError: the service refuses the caller, or is not there, or has no such model.
        """

    @abstractmethod
    def find(self, order: JobOrder) -> JobStatus | None:
        """Returns the job of an order; None if it was never submitted. Raises ServiceError."""

    @abstractmethod
    def body(self, order: JobOrder) -> Json:
        """Returns what is sent to submit a job."""

    @abstractmethod
    def status_of(self, told: Json) -> JobStatus:
        """Returns how a job is, from what the service tells of it."""

    def require(self, model: str) -> None:
        """Looks at a model. Raises ServiceError: it is not there."""
        if self.api.get(model) is None:
            raise ServiceError(f"there is no model {model}", 404)

    def get(self, resource: str) -> JobStatus:
        """Returns how a job is. Raises ServiceError."""
        found = self.api.get(resource)
        if found is None:
            raise ServiceError(f"the service does not know the job {resource} any more", 404)
        return self.status_of(found)

    def submit(self, order: JobOrder) -> tuple[JobStatus, bool]:
        """Finds the job of an order, or submits it; the same order never has two jobs.

        Returns:
          The job, and whether it was submitted now.

        Raises:
          ServiceError: it was not submitted.
        """

        def create() -> JobStatus:
            return self.status_of(self.api.send("POST", self.jobs, self.body(order)))

        return self.api.ensure(self.find(order), lambda: self.find(order), create)

    def cancel(self, resource: str) -> None:
        """Asks for the end of a job. Raises ServiceError."""
        self.api.send("POST", f"{resource}:cancel", {}, repeatable=True)


def number_in(found: Json, name: str) -> int | None:
    """Returns a count of an answer, which may be text; None if it is not there, or unknown to the service.

    >>> number_in({"failedCount": "3", "incompleteCount": "-1"}, "failedCount")
    3
    """
    value = found.get(name)
    try:
        count = int(str(value))
    except ValueError:
        return None
    return count if count >= 0 else None


def hours_in(found: Json, name: str) -> float | None:
    """Returns the hours of an answer; None if they are not there."""
    value = found.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else None
