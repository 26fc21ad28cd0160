"""Joins the requests that wait while the model is busy, and splits the predictions again.

Requests wait only while all threads call the model (or as long as they are told to). What waits then, for the same
version and signature and with the same inner shapes, shares the next call. If that call fails, each request is called
alone, so that a bad request fails by itself. A model whose rows depend on each other must not be joined:
`--max-batch-rows 1`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.serving.errors import RequestError, Status, note, too_large
from model.serving.metrics import Metrics
from model.serving.servable import Servable, rows_of
from model.serving.tensors import Arrays

Result = Arrays | Exception


@dataclass
class _Waiting:
    """A request: its inputs, and where its outputs are awaited."""

    arrays: Arrays
    rows: int
    size: int
    since: float
    outputs: "asyncio.Future[Arrays]"


@dataclass
class _Group:
    """Requests that may share a call, in the order in which they came."""

    servable: Servable
    waiting: deque[_Waiting] = field(default_factory=deque)
    rows: int = 0


class Batcher:
    """Calls models in threads, several requests at a time.

    All methods are called from the event loop's thread.

    Args:
      threads: how many calls run at a time.
      max_rows: how many rows requests are joined to. A request with more is called alone: see limits.Limits.rows.
      max_wait_s: how long a request waits for others although a thread is free.
      max_queue_rows: how many rows may wait.
      metrics: what is counted.
      max_bytes: how many bytes of inputs requests are joined to.
      max_queue_bytes: how many bytes of inputs may wait.
    """

    def __init__(
        self,
        threads: int,
        max_rows: int,
        max_wait_s: float,
        max_queue_rows: int,
        metrics: Metrics,
        *,
        max_bytes: int = 2**28,
        max_queue_bytes: int = 2**30,
    ) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._free = threads
        self._max_rows = max_rows
        self._max_wait = max_wait_s
        self._max_queue_rows = max_queue_rows
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._max_queue_bytes = max_queue_bytes
        self._groups: dict[Any, _Group] = {}
        self._rows = 0
        self._bytes = 0

    async def __call__(self, servable: Servable, arrays: Arrays, rows: int, *, alone: bool = False) -> Arrays:
        """Predicts the rows of a request.

        Args:
          servable: what is called.
          arrays: the inputs by name.
          rows: how many there are.
          alone: whether the request shares no call with others.

        Raises:
          RequestError: the model fails on them, or there are too many, or too many wait already.
        """
        size = sum(array.nbytes for array in arrays.values())
        self._check_queue(rows, size)
        loop = asyncio.get_running_loop()
        request = _Waiting(arrays, rows, size, time.monotonic(), loop.create_future())
        key: Any = object()
        if servable.joinable and not alone:
            inner = tuple((name, array.dtype, array.shape[1:]) for name, array in sorted(arrays.items()))
            key = (id(servable), inner)
        group = self._groups.setdefault(key, _Group(servable))
        group.waiting.append(request)
        group.rows += rows
        self._add(rows, size)
        self._call_what_is_due()
        if self._max_wait and not request.outputs.done():
            loop.call_later(self._max_wait, self._call_what_is_due)
        return await request.outputs

    def close(self) -> None:
        """Ends the threads that have nothing to do; the others end with their calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _check_queue(self, rows: int, size: int) -> None:
        if rows > self._max_queue_rows:
            raise too_large(
                f"the request has {rows:,} rows, and --max-queue-rows allows {self._max_queue_rows:,}; "
                "send fewer rows a request"
            )
        if self._rows + rows > self._max_queue_rows:
            message = (
                f"{self._rows:,} rows wait for the model already, and --max-queue-rows allows "
                f"{self._max_queue_rows:,}; come again"
            )
            raise RequestError(Status.UNAVAILABLE, message, retry_after=1)
        if self._bytes and self._bytes + size > self._max_queue_bytes:
            message = (
                f"inputs of {self._bytes:,} bytes wait for the model already, and {self._max_queue_bytes:,} may; "
                "come again"
            )
            raise RequestError(Status.UNAVAILABLE, message, retry_after=1)

    def _call_what_is_due(self) -> None:
        now = time.monotonic()
        while self._free:
            due = [
                (group.waiting[0].since, key)
                for key, group in self._groups.items()
                # The clock may have a coarser step than the timer.
                if group.rows >= self._max_rows or now - group.waiting[0].since >= self._max_wait * 0.999
            ]
            if not due:
                return
            self._call(min(due, key=lambda item: item[0])[1])

    def _call(self, key: Any) -> None:
        """Takes what may share a call from a group, and calls."""
        group = self._groups[key]
        requests: list[_Waiting] = []
        rows = size = 0
        while group.waiting and (
            not requests
            or (rows + group.waiting[0].rows <= self._max_rows and size + group.waiting[0].size <= self._max_bytes)
        ):
            request = group.waiting.popleft()
            group.rows -= request.rows
            self._add(-request.rows, -request.size)
            if not request.outputs.done():
                requests.append(request)
                rows += request.rows
                size += request.size
        if not group.waiting:
            del self._groups[key]
        if not requests:
            return
        self._free -= 1
        task = asyncio.get_running_loop().run_in_executor(self._threads, self._results, group.servable, requests)
        task.add_done_callback(lambda done: self._answer(requests, done))

    def _answer(self, requests: Sequence[_Waiting], done: "asyncio.Future[list[Result]]") -> None:
        self._free += 1
        if done.cancelled():
            results: list[Result] = [RequestError(Status.UNAVAILABLE, "the server stops")] * len(requests)
        else:
            error = done.exception()
            results = [Exception(repr(error))] * len(requests) if error else done.result()
        for request, result in zip(requests, results, strict=True):
            if request.outputs.done():
                continue
            if isinstance(result, Exception):
                request.outputs.set_exception(result)
            else:
                request.outputs.set_result(result)
        self._call_what_is_due()

    def _add(self, rows: int, size: int) -> None:
        self._rows += rows
        self._bytes += size
        self._metrics.waiting_rows.set(self._rows)

    def _results(self, servable: Servable, requests: Sequence[_Waiting]) -> list[Result]:
        """In a thread of the pool: the outputs of each request, or why there are none."""
        if len(requests) > 1:
            joined = self._joined(servable, requests)
            if joined is not None:
                return list(joined)
        return [self._alone(servable, request) for request in requests]

    def _joined(self, servable: Servable, requests: Sequence[_Waiting]) -> list[Arrays] | None:
        rows = [request.rows for request in requests]
        try:
            arrays = {
                name: np.concatenate([request.arrays[name] for request in requests]) for name in requests[0].arrays
            }
            outputs = self._counted(servable, arrays, sum(rows))
        except Exception:  # each request finds out by itself whether it is the bad one
            return None
        if rows_of(outputs) != {sum(rows)}:
            servable.joinable = False
            note(f"signature '{servable.signature.name}' gives outputs without a row for each input row: not joined")
            return None
        ends = np.cumsum(rows).tolist()
        return [
            {name: array[end - count : end] for name, array in outputs.items()}
            for end, count in zip(ends, rows, strict=True)
        ]

    def _alone(self, servable: Servable, request: _Waiting) -> Result:
        try:
            return self._counted(servable, request.arrays, request.rows)
        except Exception as error:
            return error

    def _counted(self, servable: Servable, arrays: Arrays, rows: int) -> Arrays:
        self._metrics.calls.inc()
        self._metrics.batch_rows.observe(rows)
        return servable(arrays)
