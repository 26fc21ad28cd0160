"""Writes rows of a stream to a table of BigQuery: at least once; exactly_once also keeps appends from being repeated.

`exactly_once` keeps an append that is tried again, because its answer was lost, from writing its rows again. A message
that the source delivers again, as after a crash, is written again in both modes.
"""

from __future__ import annotations

import pyarrow as pa

from pipelines.config.bigquery import BigQueryOutput
from pipelines.connectors.bigquery.appender import Appender
from pipelines.connectors.bigquery.tables import Table, table_columns, table_schema
from pipelines.connectors.writing.row_writer import OutputRows, RowWriter
from pipelines.plan import Plan
from pipelines.rows.messages import MessageOrigin


class BigQueryRowWriter(RowWriter):
    """Appends rows to a table; when `write` returns, BigQuery has them.

    Args:
      plan: the plan of the run.
      output: the table to write to.
    """

    _appender: Appender | None = None

    def __init__(self, plan: Plan, output: BigQueryOutput) -> None:
        self.columns = table_columns(plan)
        self._table = Table.parse(output.table)
        self._event_time = output.event_time
        self._table_schema = table_schema(self.columns, output.event_time)
        self._exactly_once = output.mode == "exactly_once"

    def write(self, rows: OutputRows) -> dict[int, str]:
        if self._appender is None:
            self._appender = Appender(self._table, self._table_schema, self._exactly_once)
        arrays = rows.encoded.columns
        if self._event_time:
            assert isinstance(rows.origin, MessageOrigin)
            arrays = [*arrays, pa.array(rows.origin.event_us()[rows.rows], pa.timestamp("us", "UTC"))]
        return self._appender.append(pa.RecordBatch.from_arrays(arrays, schema=self._table_schema))

    def close(self) -> None:
        if self._appender is not None:
            self._appender.close()
            self._appender = None
