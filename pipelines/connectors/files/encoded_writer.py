"""Holds what writers of rows into files have in common: the output's format, its columns and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from pipelines.connectors.writing.row_writer import RowWriter
from pipelines.formats.base import Writer
from pipelines.plan import OutputColumn


class EncodedWriter(RowWriter):
    """Writes rows in the output's format.

    Args:
      format: the writer of the output's format.
      columns: the columns to write.
      options: the format's own settings.
      output: prefix of the files.
    """

    stage = "encode"

    def __init__(
        self, format: type[Writer], columns: tuple[OutputColumn, ...], options: Mapping[str, Any], output: str
    ) -> None:
        self.columns = columns
        self._format = format
        self._options = dict(options)
        self._output = output

    def _begin_file(self, file: IO[bytes]) -> None:
        """Begins to write into a new file; `_writer` takes its rows."""
        self._writer = self._format(file, self.schema, self._options)
