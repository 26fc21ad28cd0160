"""Holds the run of a stream: its plan, and its source, sink and place for dead letters, each opened once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.connectors import registry
from pipelines.connectors.base import SinkConnector, SourceConnector
from pipelines.dead_letters.place import DeadLetterPlace

if TYPE_CHECKING:
    from pipelines.config.registry import StreamSource
    from pipelines.plan import Plan


@dataclass(frozen=True)
class StreamRun:
    """Holds what a stream reads from and writes to; commands make it, flows and the engine get it.

    Attributes:
      plan: what the run does.
      source: reads the messages.
      sink: writes the rows.
      dead_letters: takes the rows that cannot be processed.
    """

    plan: Plan
    source: SourceConnector
    sink: SinkConnector
    dead_letters: DeadLetterPlace

    def check(self) -> None:
        """Checks that rows and dead letters can be written. Raises ConfigError."""
        self.sink.check()
        self.dead_letters.check()

    def recover(self) -> list[str]:
        """Completes what a killed run left; returns what a person should know of it, one line each."""
        return [*self.dead_letters.recover(), *self.sink.recover()]

    def written_keys(self, seconds: float) -> Iterator[tuple[float, pa.Array]]:
        """Yields the keys that were written in the last seconds, where they can be read: (age in seconds, keys)."""
        return itertools.chain(self.sink.written_keys(seconds), self.dead_letters.written_keys(seconds))


@contextmanager
def stream_run(plan: Plan, source: StreamSource, is_native: bool = False, looks: bool = True) -> Iterator[StreamRun]:
    """Opens the run of a plan; its source is held ready until the block ends.

    Args:
      plan: what the run does.
      source: the source of the config.
      is_native: the runner itself reads the source (Dataflow reads Pub/Sub).
      looks: the source of a native run is looked at; otherwise nothing is connected to.

    Raises:
      ConfigError: the source is not there, or cannot be read.
    """
    sink = registry.stream_sink(plan)
    dead_letters = registry.stream_dead_letters(plan.config)
    with registry.open_native_source(source, looks) if is_native else registry.open_source(source) as opened:
        yield StreamRun(plan, opened, sink, dead_letters)
