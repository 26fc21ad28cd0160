"""Connects a stream to simulated messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines import storage
from pipelines.config.errors import ConfigError
from pipelines.config.simulated import SimulatedSource
from pipelines.connectors.base import SourceConnector

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines.config.run import Batching


_MOST_BYTES = 256 << 20
"""Of a file of messages to repeat."""


class SimulatedSourceConnector(SourceConnector):
    """Reads simulated messages."""

    def __init__(self, source: SimulatedSource) -> None:
        self._source = source
        self._payloads = None if source.path is None else _lines(source.path)

    def read(self, batching: Batching, attributes: bool = False) -> beam.PTransform:
        from pipelines.connectors.simulated import source as simulated

        source = simulated.SimulatedStream(
            rate=self._source.rate,
            messages=self._source.messages,
            duration_s=self._source.duration_s,
            max_rows=batching.pulled_rows,
            max_wait_ms=batching.pulled_wait_ms,
            seed=self._source.seed,
        )
        return simulated.ReadSimulated(source, self._payloads, bundle_s=batching.bundle_s)


def _lines(path: str) -> pa.Array:
    """Reads the messages of a file, one a line."""
    try:
        content = storage.read_range(path, 0, _MOST_BYTES)
    except OSError as error:
        raise ConfigError([f"source.path: {path} cannot be read: {error.strerror or error}"]) from None
    lines = [line for line in content.split(b"\n") if line.strip()]
    if not lines:
        raise ConfigError([f"source.path: {path} has no messages"])
    return pa.array(lines, pa.binary())
