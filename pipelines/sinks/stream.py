"""What the sinks of streams have in common: a micro-batch is durable before the next one is looked at."""

from __future__ import annotations

import pyarrow as pa

from pipelines.plan import Plan
from pipelines.sinks.rows import WriteRows
from pipelines.streams.latency import note_total
from pipelines.streams.messages import MessageOrigin
from pipelines.streams.patience import patiently

__all__ = ["WriteStream", "patiently"]


class WriteStream(WriteRows):
    """(MessageOrigin, record batch) -> nothing. Its rows are durable when the next come, or when the bundle ends.

    Args:
      plan: what to do.
    """

    stage = "write"

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.output, plan.key_column, "", "", plan.model.id)

    def process(self, element: tuple[MessageOrigin, pa.RecordBatch]) -> None:  # type: ignore[override]
        super().process(element)
        note_total(*element)
