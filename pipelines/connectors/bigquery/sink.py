"""Rows of a stream in a table of BigQuery: at least once; no append twice, but messages redelivered, by exactly_once.

`exactly_once` keeps an append that is tried again, because its answer was lost, from writing its rows again. A message
that the source delivers again, as after a crash, is written again in both modes.
"""

from __future__ import annotations

import dataclasses

import pyarrow as pa

from pipelines.config.bigquery import BigQueryOutput
from pipelines.connectors.bigquery.appender import Appender
from pipelines.connectors.bigquery.tables import Table, table_columns, table_schema
from pipelines.connectors.writing.answered import WriteAnswered
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.plan import OutputColumn, Plan
from pipelines.rows.messages import MessageOrigin
from pipelines.rows.origin import Positions


class WriteBigQuery(WriteAnswered):
    """(MessageOrigin, record batch) -> nothing. When `send` returns, BigQuery has its rows.

    Args:
      plan: what to do.
      output: where to write.
      dead_letters: where rows go that are refused.
    """

    _appender: Appender | None = None

    def __init__(self, plan: Plan, output: BigQueryOutput, dead_letters: DeadLetterPlace) -> None:
        columns: tuple[OutputColumn, ...] = table_columns(plan)
        super().__init__(dataclasses.replace(plan, output=columns), dead_letters)
        self._table = Table.parse(output.table)
        self._event_time = output.event_time
        self._table_schema = table_schema(columns, output.event_time)
        self._exactly_once = output.mode == "exactly_once"

    def send(self, encoded: pa.RecordBatch, origin: MessageOrigin, rows: Positions) -> dict[int, str]:
        if self._appender is None:
            self._appender = Appender(self._table, self._table_schema, self._exactly_once)
        arrays = encoded.columns
        if self._event_time:
            arrays = [*arrays, pa.array(origin.event_us()[rows], pa.timestamp("us", "UTC"))]
        return self._appender.append(pa.RecordBatch.from_arrays(arrays, schema=self._table_schema))

    def teardown(self) -> None:
        super().teardown()
        if self._appender is not None:
            self._appender.close()
            self._appender = None
