"""Bigtable as a flow asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.config.bigtable import BigtableOutput
from pipelines.config.errors import ConfigError
from pipelines.connectors.base import SinkConnector
from pipelines.connectors.bigtable import tables
from pipelines.dead_letters.place import DeadLetterPlace

if TYPE_CHECKING:
    from pipelines.connectors.writing.rows import WriteRows
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

    def sink(self, dead_letters: DeadLetterPlace) -> WriteRows:
        from pipelines.connectors.bigtable.sink import WriteBigtable

        return WriteBigtable(self._plan, self._output, dead_letters)

    def describe(self) -> str:
        return self._output.describe()
