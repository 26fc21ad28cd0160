"""Connects a stream to Bigtable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.config.bigtable import BigtableOutput
from pipelines.config.errors import ConfigError
from pipelines.connectors.base import SinkConnector
from pipelines.connectors.bigtable import tables

if TYPE_CHECKING:
    from pipelines.connectors.writing.row_writer import RowWriter
    from pipelines.plan import Plan


class BigtableSinkConnector(SinkConnector):
    """Writes rows of a table, one cell a column."""

    def __init__(self, plan: Plan, output: BigtableOutput) -> None:
        self._plan = plan
        self._output = output

    def check(self) -> None:
        problems = tables.key_problems(self._plan, self._output.row_key)
        if problems:
            raise ConfigError(problems)
        tables.ready_table(self._output)

    def writer(self) -> RowWriter:
        from pipelines.connectors.bigtable.sink import BigtableRowWriter

        return BigtableRowWriter(self._plan, self._output)

    def describe(self) -> str:
        return self._output.describe()
