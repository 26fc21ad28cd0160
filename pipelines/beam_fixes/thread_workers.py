"""Runs batch pipelines on threads of this process that share the pieces of work, and without gRPC between them.

Beam's in-process runner (2.77, runners/portability/fn_api_runner) has workers in threads only behind gRPC servers of
their own, whose start and answers are a fifth of a run of a second. And it deals the elements out before a bundle
starts: where some take longer than others, all workers wait for the last one. Here each worker takes the next elements
when it has done its last ones.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.worker import data_plane

from pipelines.beam_fixes.fn_runner import WholeBundleManager

_SHARES_A_WORKER = 64
"""Into how many shares the elements of a bundle are divided at most, for each worker."""
_MODE = "threads of this process"
"""A mode that Beam does not know: it runs what it would run in its mode in_memory, and does not advise against it."""


def use(options: PipelineOptions) -> None:
    """Has pipelines with these options run on threads of this process, if they ask for threads. May be called again."""
    direct = options.view_as(DirectOptions)
    if direct.direct_running_mode == "multi_threading":
        direct.direct_running_mode = _MODE
        fn_runner.ParallelBundleManager = _SharingBundleManager
        worker_handlers.WorkerHandler.register_environment(python_urns.EMBEDDED_PYTHON, None)(_ThreadWorker)


class _Shares:
    """Hands out the elements of a bundle to whichever worker is free; safe to use from several threads."""

    def __init__(self, elements: Iterator[tuple[str, bytes]]) -> None:
        self._left = list(elements)[::-1]

    def __len__(self) -> int:
        return len(self._left)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        while True:
            try:
                yield self._left.pop()
            except IndexError:
                return

    def stop(self) -> None:
        """Hands out no more."""
        self._left.clear()


class _SharingChannel(data_plane.InMemoryDataChannel):  # type: ignore[misc]  # Beam's classes are untyped
    """Gives a worker what was sent to it, and then its shares of the bundle."""

    shares: _Shares | None = None

    def input_elements(
        self, instruction_id: str, unused_expected_inputs: Any, abort_callback: Any = None
    ) -> Iterator[Any]:
        yield from super().input_elements(instruction_id, unused_expected_inputs, abort_callback)
        for transform_id, data in self.shares or ():
            yield beam_fn_api_pb2.Elements.Data(instruction_id=instruction_id, transform_id=transform_id, data=data)


class _ThreadWorker(worker_handlers.EmbeddedWorkerHandler):  # type: ignore[misc]  # Beam's classes are untyped
    """Runs bundles in the thread that starts them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.channel = _SharingChannel()
        self.data_plane_handler = self.data_conn = self.channel.inverse()
        self.bundle_processor_cache.data_channel_factory = data_plane.InMemoryDataChannelFactory(self.channel)

    def push(self, request: Any) -> Any:
        try:
            return super().push(request)
        except Exception:
            if self.channel.shares is not None:
                self.channel.shares.stop()
            # As a worker behind gRPC answers, so that a failure reads the same whatever the workers are.
            failed = beam_fn_api_pb2.InstructionResponse(
                instruction_id=request.instruction_id, error=traceback.format_exc()
            )
            return worker_handlers.ControlFuture(request.instruction_id, failed)


class _SharingBundleManager(WholeBundleManager):
    """Runs a bundle on all workers that it has elements for; each takes some until none are left, or one has failed."""

    def parts(self, inputs: Mapping[str, Any]) -> list[dict[str, Sequence[bytes]]]:
        handlers = self.bundle_context_manager.worker_handlers
        if not all(isinstance(handler, _ThreadWorker) for handler in handlers):
            # Of another pipeline of this process, whose workers are processes or behind gRPC.
            return super().parts(inputs)
        parted = {name: buffer.partition(_SHARES_A_WORKER * len(handlers)) for name, buffer in inputs.items()}
        shares = _Shares((name, data) for name, parts in parted.items() for data in chain.from_iterable(parts) if data)
        for handler in handlers:
            handler.channel.shares = shares
        # A worker without elements would only take the others' time to start its part.
        busy = max(1, min(len(handlers), len(shares)))
        return [dict.fromkeys(inputs, ())] * busy
