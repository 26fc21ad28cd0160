"""What every protocol does to a prediction request: admit it or make it fail on purpose, predict, count."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from model.errors import ModelError
from model.serving.batcher import Batcher
from model.serving.errors import RequestError, Status
from model.serving.faults import Faults, Quota
from model.serving.metrics import Metrics
from model.serving.options import Options
from model.serving.store import Servable, Store
from model.serving.tensors import Arrays, row_count

_LARGE_BYTES = 64 * 2**10
_HELD_BODIES = 16

Value = TypeVar("Value")


@dataclass(frozen=True)
class Query:
    """What a request asks for.

    Attributes:
      servable: the version and signature.
      arrays: the inputs by name, of the signature's types and shapes.
    """

    servable: Servable
    arrays: Arrays


@dataclass
class Outcome:
    """How a prediction request ended: HTTP's code or the name of gRPC's, for the counters."""

    code: str = "INTERNAL"


@dataclass
class Service:
    """A served model, without any protocol.

    Attributes:
      options: the command line's.
      store: the versions.
      metrics: what is counted.
      held_bytes: the size of the bodies in memory.
      in_flight: how many prediction requests are being answered.
    """

    options: Options
    store: Store
    metrics: Metrics = field(default_factory=Metrics)
    held_bytes: int = 0
    in_flight: int = 0

    def __post_init__(self) -> None:
        options = self.options
        self.batcher = Batcher(
            options.threads,
            options.max_batch_rows,
            options.max_batch_wait_s,
            options.max_queue_rows,
            self.metrics,
        )
        self._faults = Faults(options.error_rate, options.error_kinds, options.seed)
        self._quota = Quota(options.quota_qps)

    @contextmanager
    def counted(self, protocol: str) -> Iterator[Outcome]:
        """Counts a prediction request; whoever answers it sets the outcome's code."""
        outcome = Outcome()
        started = time.perf_counter()
        self._fly(1)
        try:
            yield outcome
        finally:
            self._fly(-1)
            self.metrics.requests.labels(protocol, outcome.code).inc()
            self.metrics.seconds.labels(protocol).observe(time.perf_counter() - started)

    async def admit(self) -> str | None:
        """Takes a prediction request in, with what was asked for on purpose: latency, a quota, faults.

        Returns:
          How to spoil the answer: "reset", "truncated", "misaligned", "html"; None for not at all.

        Raises:
          RequestError: the quota is used up, or the fault is an error.
        """
        options = self.options
        if not self._quota.take():
            message = f"Quota exceeded: {options.quota_qps:g} online prediction requests a second"
            raise RequestError(Status.QUOTA, message, options.retry_after_s)
        fault = self._faults.draw()
        delay = options.latency_s + (options.stall_s if fault == "stall" else 0.0)
        if delay:
            await asyncio.sleep(delay)
        if fault == "429":
            raise RequestError(Status.QUOTA, "Quota exceeded, on purpose", options.retry_after_s)
        if fault == "500":
            raise RequestError(Status.INTERNAL, "an internal error, on purpose")
        if fault == "503":
            raise RequestError(Status.UNAVAILABLE, "not available, on purpose", options.retry_after_s)
        return fault if fault != "stall" else None

    async def predict(self, query: Query, fault: str | None = None) -> Arrays:
        """The outputs by name.

        Raises:
          RequestError: the inputs have different numbers of rows, or the model fails on them.
        """
        rows = row_count(query.arrays, query.servable.signature.inputs)
        try:
            outputs = await self.batcher(query.servable, query.arrays, rows)
        except ModelError as error:
            raise RequestError(Status.INTERNAL, str(error)) from error
        self.metrics.rows.inc(rows)
        if fault == "misaligned":
            return {name: array[:-1] if array.ndim else array for name, array in outputs.items()}
        return outputs

    def _fly(self, requests: int) -> None:
        self.in_flight += requests
        self.metrics.in_flight.set(self.in_flight)

    def hold(self, size: int) -> None:
        """Accounts for bytes of a body. Raises RequestError if there are too many of all requests together."""
        self.held_bytes += size
        if self.held_bytes > _HELD_BODIES * self.options.max_body_bytes:
            raise RequestError(Status.UNAVAILABLE, "too many large requests at a time", retry_after=1)


async def apart(size: int, function: Callable[[], Value]) -> Value:
    """Calls a function, in a thread if it has much to do.

    Args:
      size: of what it reads or writes, in bytes.
    """
    return await asyncio.to_thread(function) if size > _LARGE_BYTES else function()
