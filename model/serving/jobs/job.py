"""Describes a batch prediction job: what it is to do, how far it is."""

from __future__ import annotations

import enum
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from model.serving.servable import Servable


class State(enum.Enum):
    """Says how far a job is; each service has words of its own for it."""

    QUEUED = enum.auto()
    PREPARING = enum.auto()
    RUNNING = enum.auto()
    SUCCEEDED = enum.auto()
    PARTIAL = enum.auto()
    FAILED = enum.auto()
    CANCELLING = enum.auto()
    CANCELLED = enum.auto()

    @property
    def is_final(self) -> bool:
        """Tells whether nothing comes after it."""
        return self in (State.SUCCEEDED, State.PARTIAL, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class JobTask:
    """Says what a job is to do.

    Attributes:
      servable: the model.
      inputs: patterns of files of instances.
      are_records: whether these files are TFRecords, and not JSON lines.
      are_packed: whether these files are packed with gzip.
      batch_size: most instances in a call of the model.
      output: folder of the results.
      key_field: member of an instance that is taken out and written with its result; None: the instance is written.
      names_outputs: whether a result line is an object of the outputs and nothing else.
      body: what was submitted, as it is told again.
    """

    servable: Servable
    inputs: tuple[str, ...]
    are_records: bool
    are_packed: bool
    batch_size: int
    output: str
    key_field: str | None
    names_outputs: bool
    body: dict[str, Any]


@dataclass
class Job:
    """Describes a job that was submitted.

    Attributes:
      name: its resource name.
      task: what it is to do.
      state: how far it is.
      message: why it failed.
      succeeded: instances with a prediction.
      failed: instances that were refused.
      untried: instances that were not tried.
      created: seconds since the epoch.
      started: likewise; 0 before.
      ended: likewise; 0 before.
    """

    name: str
    task: JobTask
    state: State = State.QUEUED
    message: str = ""
    succeeded: int = 0
    failed: int = 0
    untried: int = 0
    created: float = field(default_factory=time.time)
    started: float = 0.0
    ended: float = 0.0

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.stop = threading.Event()

    @property
    def hours(self) -> float:
        """Returns how long it has run, as it would be billed."""
        return max(0.0, (self.ended or time.time()) - self.started) / 3600 if self.started else 0.0

    def move(self, state: State, message: str = "") -> None:
        """Goes over to a state, unless the job has ended."""
        with self.lock:
            if self.state.is_final or (self.state is State.CANCELLING and not state.is_final):
                return
            self.state, self.message = state, message
            if state is State.RUNNING:
                self.started = time.time()
            if state.is_final:
                self.ended = time.time()

    def cancel(self) -> None:
        """Tells the job to end."""
        self.move(State.CANCELLING)
        self.stop.set()

    def count(self, succeeded: int = 0, failed: int = 0, untried: int = 0) -> None:
        """Adds to the counts; from any thread."""
        with self.lock:
            self.succeeded += succeeded
            self.failed += failed
            self.untried += untried
