"""Mends Beam's in-process runner for streams: without this it loses messages and grows.

Both mistakes are in Beam 2.77 (runners/portability/fn_api_runner/fn_runner.py):

- With several workers it forgets what the workers' bundles put off, which is where a source that checkpoints goes on:
  the stream ends after the first bundle, and nobody is told.
- The metrics of each bundle are added up by a generator around that of the bundle before, which is only run when
  the metrics are read: about 17 KB a bundle, and a recursion as deep as there were bundles.

The tests test_several_workers and test_metrics_of_many_bundles of tests/pipelines/streams/test_simulated.py fail
without this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from apache_beam.metrics import monitoring_infos
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.utils import thread_pool_executor


def mend() -> None:
    """Replaces the two mistaken pieces, in this process and for good. May be called again."""
    fn_runner.ParallelBundleManager = WholeBundleManager
    fn_runner.consolidate_monitoring_infos = _added_up


def _added_up(infos: Iterable[Any]) -> list[Any]:
    return list(monitoring_infos.consolidate(infos))


class WholeBundleManager(fn_runner.ParallelBundleManager):  # type: ignore[misc]  # Beam's classes are untyped
    """Runs a bundle on all workers, a part on each; its result has what each of them put off."""

    def parts(self, inputs: Mapping[str, Any]) -> list[dict[str, Sequence[bytes]]]:
        """Returns what to send to each worker: the elements of each input, dealt out."""
        workers = self._num_workers
        parted = {name: buffer.partition(workers) for name, buffer in inputs.items()}
        return [{name: parts[worker] for name, parts in parted.items()} for worker in range(workers)]

    def process_bundle(
        self,
        inputs: Mapping[str, Any],
        expected_outputs: Any,
        fired_timers: Any,
        expected_output_timers: Any,
        dry_run: bool = False,
    ) -> tuple[Any, list[Any]]:
        def execute(worker: int, part: dict[str, Sequence[bytes]]) -> tuple[Any, list[Any]]:
            manager = fn_runner.BundleManager(
                self.bundle_context_manager,
                self._progress_frequency,
                cache_token_generator=self._cache_token_generator,
            )
            # As in Beam, timers are all fired on the first worker.
            timers = {} if worker else fired_timers
            done: tuple[Any, list[Any]] = manager.process_bundle(
                part, expected_outputs, timers, expected_output_timers, dry_run
            )
            return done

        parts = self.parts(inputs)
        with thread_pool_executor.shared_unbounded_instance() as executor:
            results = list(executor.map(execute, range(len(parts)), parts))
        bundles = [response.process_bundle for response, _ in results]
        whole = beam_fn_api_pb2.ProcessBundleResponse(
            monitoring_infos=_added_up(chain.from_iterable(bundle.monitoring_infos for bundle in bundles)),
            residual_roots=chain.from_iterable(bundle.residual_roots for bundle in bundles),
        )
        splits = list(chain.from_iterable(split for _, split in results))
        return beam_fn_api_pb2.InstructionResponse(process_bundle=whole), splits
