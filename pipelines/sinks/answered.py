"""Sinks whose service answers for each row: one that is refused is a dead letter, and its neighbours stay written."""

from __future__ import annotations

from abc import abstractmethod

import pyarrow as pa

from pipelines.rows import Origin, Positions
from pipelines.sinks.rows import RowRefusedError
from pipelines.sinks.stream import WriteStream
from pipelines.streams.messages import MessageOrigin


class WriteAnswered(WriteStream):
    """(MessageOrigin, record batch) -> nothing. Rows are sent once, also while those refused are looked for."""

    _refused: dict[int, str]
    _settled: set[int]

    @abstractmethod
    def send(self, encoded: pa.RecordBatch, origin: MessageOrigin, rows: Positions) -> dict[int, str]:
        """Writes rows.

        Args:
          encoded: the columns to write, of the types to write.
          origin: where the rows come from.
          rows: which rows of the origin they are.

        Returns:
          Why rows are refused, by their index; all others are durable.
        """

    def process(self, element: tuple[MessageOrigin, pa.RecordBatch]) -> None:  # type: ignore[override]
        self._refused, self._settled = {}, set()
        super().process(element)

    def write(self, encoded: pa.RecordBatch, origin: Origin, rows: Positions) -> None:
        assert isinstance(origin, MessageOrigin)
        if not len(rows):
            return
        # What is halved was sent when it was whole.
        if int(rows[0]) not in self._settled:
            found = self.send(encoded, origin, rows)
            if found:
                self._refused |= {int(rows[index]): why for index, why in found.items()}
                self._settled.update(rows.tolist())
        if self._refused and (at_fault := self._refused.keys() & rows.tolist()):
            raise RowRefusedError(self._refused[min(at_fault)])
