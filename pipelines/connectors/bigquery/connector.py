"""Connects a stream to BigQuery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.config.bigquery import BigQueryOutput
from pipelines.config.errors import ConfigError
from pipelines.connectors.base import SinkConnector
from pipelines.connectors.bigquery import tables

if TYPE_CHECKING:
    from pipelines.connectors.writing.row_writer import RowWriter
    from pipelines.plan import Plan


class BigQuerySinkConnector(SinkConnector):
    """Writes rows of a table."""

    def __init__(self, plan: Plan, output: BigQueryOutput) -> None:
        self._plan = plan
        self._output = output

    def check(self) -> None:
        columns, added = tables.table_columns(self._plan), self._output.event_time
        if added in [column.name for column in columns]:
            raise ConfigError([f"output.event_time: '{added}' is one of output.columns already; take another name"])
        schema = tables.table_schema(columns, added)
        tables.ready_table(tables.Table.parse(self._output.table), schema, "output", bool(self._output.create))

    def writer(self) -> RowWriter:
        from pipelines.connectors.bigquery.sink import BigQueryRowWriter

        return BigQueryRowWriter(self._plan, self._output)

    def describe(self) -> str:
        return self._output.describe()
