"""Shows rows of a stream on the console, some of them a second. No guarantee: it is for people to look at."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import apache_beam as beam
import pyarrow as pa

from inference.marks import rows_of
from model import terminal
from pipelines.connectors.streaming.batch_sizing import note_total
from pipelines.connectors.writing.columns import keys_of
from pipelines.formats.output_values import shown_values
from pipelines.plan import OutputColumn
from pipelines.rows.origin import Origin
from pipelines.telemetry.tally import TALLY

_lock = threading.Lock()


class ShowRows(beam.DoFn):  # type: ignore[misc]
    """Shows rows as lines of JSON on standard output, or standard error.

    Args:
      columns: what to show.
      key_column: the source column that is the key, if there is one.
      rows: at most so many a second.
      to_stderr: standard output is taken.
      last: nothing else is done with the rows: they are accounted for here.
    """

    def __init__(
        self, columns: tuple[OutputColumn, ...], key_column: str | None, rows: int, to_stderr: bool, last: bool
    ) -> None:
        self._columns = columns
        self._key_column = key_column
        self._rows = rows
        self._to_stderr = to_stderr
        self._last = last
        self._second = self._shown = 0

    def process(self, element: tuple[Origin, pa.RecordBatch]) -> None:
        origin, batch = element
        self._show(origin, batch)
        if self._last:
            TALLY.add(written=batch.num_rows)
            note_total(origin, batch)

    def _show(self, origin: Origin, batch: pa.RecordBatch) -> None:
        count = self._take(batch.num_rows)
        if not count:
            return
        batch, rows = batch.slice(0, count), rows_of(batch)[:count]
        found: dict[str, list[Any]] = {
            column.name: shown_values(
                keys_of(self._key_column, origin, batch, rows) if column.origin == "key" else batch[column.name]
            )
            for column in self._columns
        }
        lines = [
            json.dumps(dict(zip(found, values, strict=True)), default=str)
            for values in zip(*found.values(), strict=True)
        ]
        with _lock:
            terminal.print_text("\n".join(lines), stderr=self._to_stderr)

    def _take(self, wanted: int) -> int:
        """How many of `wanted` rows may be shown in this second."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._shown = second, 0
        taken = max(0, min(wanted, self._rows - self._shown))
        self._shown += taken
        return taken
