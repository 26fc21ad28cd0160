"""Connects a stream to the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.config.console import ConsoleOutput
from pipelines.connectors.base import SinkConnector

if TYPE_CHECKING:
    from pipelines.plan import Plan


class ConsoleSinkConnector(SinkConnector):
    """Writes nothing: the flow shows rows on the console."""

    def __init__(self, plan: Plan, output: ConsoleOutput) -> None:
        self._output = output

    def check(self) -> None:
        """Does nothing: the console takes anything."""

    def writer(self) -> None:
        return None

    def describe(self) -> str:
        return self._output.describe()
