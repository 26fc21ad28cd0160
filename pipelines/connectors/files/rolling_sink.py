"""Writes record batches of a stream to files by windows. At least once: a bundle run again is appended again.

What is written is durable at the end of the bundle, before its messages are acknowledged (see `rolling`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.connectors.files.encoded_writer import EncodedWriter
from pipelines.connectors.files.rolling import RollingFile, recover
from pipelines.connectors.writing.row_writer import OutputRows
from pipelines.formats.base import Writer
from pipelines.plan import OutputColumn


class RollingWriter(EncodedWriter):
    """Appends rows to the file of the present window.

    Args:
      format: the writer of the output's format.
      columns: the columns to write.
      options: the format's own settings.
      output: prefix of the files.
      window_s: length of a file's window in seconds.
    """

    def __init__(
        self,
        format: type[Writer],
        columns: tuple[OutputColumn, ...],
        options: Mapping[str, Any],
        output: str,
        window_s: float,
    ) -> None:
        super().__init__(format, columns, options, output)
        self._window_s = window_s

    def open(self) -> None:
        # A worker that was killed while its stream goes on elsewhere has left whole rows.
        recover(self._output, self._format.extension)
        self._rolling = RollingFile(self._output, self._format.extension, self._window_s)

    def begin_bundle(self) -> None:
        # The window may have ended while nothing came.
        self._rolling.flush()

    def write(self, rows: OutputRows) -> None:
        is_new = not self._rolling.is_open
        file = self._rolling.open()
        if is_new:
            self._begin_file(file)
        self._writer.write(rows.encoded)

    def end_bundle(self) -> tuple[()]:
        self._rolling.flush()
        return ()

    def close(self) -> None:
        self._rolling.close()
