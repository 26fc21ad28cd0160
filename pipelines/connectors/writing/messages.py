"""What sinks into topics have in common: a message a row, beside it the row's key, the same whenever it is written."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from inference.marks import rows_of
from pipelines.connectors.writing.answered import WriteAnswered
from pipelines.connectors.writing.columns import keys_of
from pipelines.formats.output_values import to_output
from pipelines.rows.messages import MessageOrigin
from pipelines.rows.origin import Positions


class WriteMessages(WriteAnswered):
    """(MessageOrigin, record batch) -> nothing. What it sends is a message a row.

    Attributes:
      batch: what is being written.
      keys: of its rows, string.
    """

    batch: pa.RecordBatch
    keys: pa.Array

    def process(self, element: tuple[MessageOrigin, pa.RecordBatch]) -> None:  # type: ignore[override]
        origin, self.batch = element
        rows = rows_of(self.batch)
        self.keys = to_output(keys_of(self._key_column, origin, self.batch, rows), pa.string())
        self._place = np.zeros(rows.max(initial=-1) + 1, np.int64)
        self._place[rows] = np.arange(len(rows))
        super().process(element)

    def at(self, rows: Positions) -> pa.Array:
        """Where rows of the origin are in `batch` and `keys`."""
        return pa.array(self._place[rows])
