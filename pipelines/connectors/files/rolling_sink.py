"""Record batches of a stream -> files, published by windows. At least once: a bundle run again is appended again.

What is written is durable at the end of the bundle, before its messages are acknowledged (see `rolling`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipelines.connectors.files.rolling import RollingFile
from pipelines.connectors.files.sink import WriteShards
from pipelines.connectors.streaming.batch_sizing import note_total
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.formats import writer_class
from pipelines.formats.base import Writer
from pipelines.plan import Plan
from pipelines.rows.messages import MessageOrigin


class WriteRolling(WriteShards):
    """(MessageOrigin, record batch) -> nothing; what cannot be encoded goes to the dead letters.

    Args:
      plan: what to do.
      options: the format's own settings.
      window_s: length of a file's window.
      dead_letters: where they go.
    """

    def __init__(self, plan: Plan, options: Mapping[str, Any], window_s: float, dead_letters: DeadLetterPlace) -> None:
        output = plan.config.output
        super().__init__(
            writer_class(output.format), plan.output, plan.key_column, options, output.path,
            plan.run_id, dead_letters, plan.model.id,
        )  # fmt: skip
        self._file_window_s = window_s
        # Of a stream, outputs that do not change are found before any sink.
        self._outputs = ()

    def setup(self) -> None:
        super().setup()
        self._rolling = RollingFile(self._output, self._make_writer.extension, self._file_window_s)

    def start_bundle(self) -> None:
        super().start_bundle()
        # The window may have ended while nothing came.
        self._rolling.flush()

    def _open(self) -> Writer:
        fresh = not self._rolling.is_open
        self._file = self._rolling.open()
        if fresh:
            self._writer = self._make_writer(self._file, self._schema, self._options)
        return self._writer

    def process(self, element: tuple[MessageOrigin, pa.RecordBatch]) -> None:  # type: ignore[override]
        super().process(element)
        note_total(*element)

    def finish_bundle(self) -> Iterator[Any]:
        self._rolling.flush()
        self._file = None
        yield from super().finish_bundle()

    def teardown(self) -> None:
        self._rolling.close()
        super().teardown()
