"""Does what every protocol does to a prediction request: admits it or makes it fail on purpose, predicts, counts."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from model.errors import ModelError
from model.serving.batcher import Batcher
from model.serving.errors import RequestError, Status, invalid
from model.serving.faults import Faults, Quota
from model.serving.jobs.queue import JobQueue
from model.serving.limits import HELD_BODIES, Limits
from model.serving.metrics import Metrics
from model.serving.models import Models
from model.serving.options import Options
from model.serving.servable import Servable, rows_of
from model.serving.tensors import Arrays, broadcast_size, disagreement, row_count

_LARGE_BYTES = 64 * 2**10
_READERS = 2
_LARGEST_VALUE = 8
"""Bytes of a number, of which broadcasting makes many."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Query:
    """Describes what a request wants of the model.

    Attributes:
      servable: the version and signature.
      arrays: the inputs by name, of the signature's types.
      rowwise: whether every output must have as many rows as the request.
    """

    servable: Servable
    arrays: Arrays
    rowwise: bool = False


@dataclass
class RequestOutcome:
    """Describes how a prediction request ended: HTTP's code or the name of gRPC's, for the counters."""

    code: str = "INTERNAL"


class Held:
    """Counts the bytes of one request, as the service accounts for them."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._size = 0

    def add(self, size: int) -> None:
        """Accounts for more. Raises RequestError if there are too many of all requests together."""
        self._size += size
        self._service.hold(size)

    def release(self) -> None:
        """Accounts for none any more."""
        self._service.hold(-self._size)
        self._size = 0


@dataclass
class Service:
    """Answers requests by served models, without any protocol.

    Attributes:
      options: the command line's.
      models: the models and their versions.
      limits: what a request may hold.
      metrics: what is counted.
      held_bytes: the size of the bodies in memory.
      in_flight: how many prediction requests are being answered.
    """

    options: Options
    models: Models
    metrics: Metrics = field(default_factory=Metrics)
    held_bytes: int = 0
    in_flight: int = 0

    def __post_init__(self) -> None:
        options = self.options
        self.limits = Limits.of(options)
        self.jobs = JobQueue(options.jobs, self.limits)
        self.batcher = Batcher(
            options.threads,
            options.max_batch_rows,
            options.max_batch_wait_s,
            options.max_queue_rows,
            self.metrics,
            max_bytes=self.limits.input_bytes,
            max_queue_bytes=HELD_BODIES * options.max_body_bytes,
        )
        # Few, as reading a request may take many times its size.
        self._readers = ThreadPoolExecutor(max(options.threads, _READERS), thread_name_prefix="reader")
        self._faults = Faults(options.error_rate, options.error_kinds, options.seed)
        self._quota = Quota(options.quota_qps)

    @contextmanager
    def counted(self, protocol: str) -> Iterator[RequestOutcome]:
        """Counts a prediction request; whoever answers it sets the outcome's code."""
        outcome = RequestOutcome()
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
        """Returns the outputs by name.

        Inputs of other shapes than the signature declares share no call with others: the graph decides.

        Raises:
          RequestError: the inputs have too many rows, or the model fails on them.
        """
        specs = query.servable.signature.inputs
        rows = row_count(query.arrays, specs)
        self.limits.check_rows(rows)
        self.limits.check_input_bytes(sum(array.nbytes for array in query.arrays.values()))
        odd = disagreement(query.arrays, specs)
        if odd is not None and broadcast_size(query.arrays) * _LARGEST_VALUE > self.limits.input_bytes:
            raise invalid(odd)
        try:
            outputs = await self.batcher(query.servable, query.arrays, rows, alone=odd is not None)
        except ModelError as error:
            raise RequestError(Status.INTERNAL, str(error)) from error
        except RequestError as error:
            if odd is None or error.status is not Status.INVALID:
                raise
            raise invalid(f"{odd}; {error}") from error
        if query.rowwise and rows_of(outputs) != {rows}:
            given = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
            raise invalid(f"Expected output batch size of {rows}. Got: {given}")
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
        limit = HELD_BODIES * self.options.max_body_bytes
        if size > 0 and self.held_bytes > limit:
            message = f"too many large requests at a time: together they may have {limit:,} bytes; come again"
            raise RequestError(Status.UNAVAILABLE, message, retry_after=1)

    @contextmanager
    def held(self) -> Iterator[Held]:
        """Holds the bytes of a request for as long as the block runs."""
        held = Held(self)
        try:
            yield held
        finally:
            held.release()

    async def apart(self, size: int, function: Callable[[], Value]) -> Value:
        """Calls a function, in a thread if it has much to do.

        Args:
          size: bytes that the function reads or writes.
          function: what to call.
        """
        if size <= _LARGE_BYTES:
            return function()
        return await asyncio.get_running_loop().run_in_executor(self._readers, function)

    def close(self) -> None:
        """Ends the threads that have nothing to do; the others end with what they do."""
        self.jobs.close()
        self.batcher.close()
        self._readers.shutdown(wait=False, cancel_futures=True)
