"""Connects a stream to files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.config.errors import ConfigError
from pipelines.config.files import FileOutput
from pipelines.connectors.base import SinkConnector
from pipelines.connectors.files import rolling, written_keys
from pipelines.formats import writer_class
from pipelines.plan import KEY, output_options

if TYPE_CHECKING:
    from pipelines.connectors.writing.row_writer import RowWriter
    from pipelines.plan import Plan


class FilesSinkConnector(SinkConnector):
    """Writes files that are published by windows."""

    def __init__(self, plan: Plan, output: FileOutput) -> None:
        self._plan = plan
        self._output = output
        self._extension = writer_class(output.format).extension

    def check(self) -> None:
        # The plan has looked at the folder.
        if self._plan.config.dedupe is not None:
            self._key_name()

    def recover(self) -> list[str]:
        return rolling.recovered(self._output.path, self._extension)

    def written_keys(self, seconds: float) -> Iterator[tuple[float, pa.Array]]:
        output = self._output
        yield from written_keys.keys(
            output.path, self._extension, self._key_name(), seconds, output.window_s, output.delimiter
        )

    def _key_name(self) -> str:
        """Returns the column of the files with the key."""
        name = next((column.name for column in self._plan.output if column.origin == "key"), None)
        if name is None:
            key = self._plan.key_column or KEY
            raise ConfigError([f"output.columns: add '{key}': dedupe reads it from the files after a restart"])
        return name

    def writer(self) -> RowWriter:
        from pipelines.connectors.files.rolling_sink import RollingWriter

        plan, output = self._plan, self._output
        format = writer_class(output.format)
        return RollingWriter(format, plan.output, output_options(plan), output.path, output.window_s)

    def describe(self) -> str:
        return rolling.pattern(self._output.path, self._extension)
