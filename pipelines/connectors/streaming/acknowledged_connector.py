"""Sources whose messages are acknowledged when what they became is durable, as a flow needs them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.connectors.base import SourceConnector

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines.config.run import Batching
    from pipelines.connectors.streaming.acknowledged import AcknowledgedSource


class AcknowledgedConnector(SourceConnector):
    """Reads a source whose messages are acknowledged when what they became is durable."""

    _finish: Callable[[bool], int] | None = None

    def read(self, batching: Batching, attributes: bool = False) -> beam.PTransform:
        from pipelines.connectors.streaming import acknowledged
        from pipelines.connectors.streaming.unbounded import ReadUnbounded

        self._finish = acknowledged.finish
        return ReadUnbounded(self.source(batching, attributes), batching.bundle_s)

    @abstractmethod
    def source(self, batching: Batching, attributes: bool) -> AcknowledgedSource:
        """Makes the source, of the arguments of `read`."""

    def finish(self, all_is_done: bool = False) -> int:
        return 0 if self._finish is None else self._finish(all_is_done)
