"""Sinks whose service answers for each row: one that is refused is a dead letter, and its neighbours stay written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from inference.marks import rows_of
from pipelines.connectors.streaming.batch_sizing import note_total
from pipelines.connectors.writing.rows import RowRefusedError, WriteRows
from pipelines.dead_letters.place import DeadLetterPlace
from pipelines.plan import Plan
from pipelines.rows.messages import MessageOrigin
from pipelines.rows.origin import Origin, Positions

Answers = Callable[[], dict[int, str]]
"""Waits until all rows of a call are durable or refused; gives why they are refused, by their index."""

_MANY_ROWS = 4_096
"""So many came together because there are more: their answers are waited for while the next are read."""


class WriteAnswered(WriteRows):
    """(MessageOrigin, record batch) -> nothing. When a bundle ends, or the next element comes, its rows are durable.

    Args:
      plan: what to do.
      dead_letters: where rows go that are refused.
    """

    stage = "write"

    _element: tuple[MessageOrigin, pa.RecordBatch] | None = None
    """What is sent, and not settled yet."""
    _asked: tuple[Answers, Positions] | None = None
    """Of it, rows that are not answered for yet."""

    def __init__(self, plan: Plan, dead_letters: DeadLetterPlace) -> None:
        super().__init__(plan.output, plan.key_column, dead_letters, plan.model.id)

    @abstractmethod
    def send(self, encoded: pa.RecordBatch, origin: MessageOrigin, rows: Positions) -> dict[int, str] | Answers:
        """Writes rows.

        Args:
          encoded: the columns to write, of the types to write.
          origin: where the rows come from.
          rows: which rows of the origin they are.

        Returns:
          Why rows are refused, by their index, if all others are durable now; or else what waits for that.
        """

    def start_bundle(self) -> None:
        # What a bundle that failed has sent is read again.
        self._element = self._asked = None
        super().start_bundle()

    def process(self, element: tuple[MessageOrigin, pa.RecordBatch]) -> None:  # type: ignore[override]
        self._settle()
        self._element = element
        super().process(element)
        if element[1].num_rows < _MANY_ROWS:
            self._settle()

    def finish_bundle(self) -> Iterator[Any]:
        self._settle()
        yield from super().finish_bundle()

    def write(self, encoded: pa.RecordBatch, origin: Origin, rows: Positions) -> None:
        assert isinstance(origin, MessageOrigin)
        self._take_answers()
        if len(rows):
            sent = self.send(encoded, origin, rows)
            self._asked = (sent if callable(sent) else lambda: sent), rows

    def wrote(self, rows: int) -> None:
        """Nothing: they are counted when they are answered for."""

    def _settle(self) -> None:
        """Waits until what was sent is durable or refused."""
        if self._element is not None:
            self._take_answers()
            note_total(*self._element)
            self._element = None

    def _take_answers(self) -> None:
        if self._asked is None or self._element is None:
            return
        (answers, rows), (origin, batch) = self._asked, self._element
        self._asked = None
        refused = answers()
        for index, why in refused.items():
            row = int(rows[index])
            self.reject(origin, batch, int(np.searchsorted(rows_of(batch), row)), row, RowRefusedError(why))
        super().wrote(len(rows) - len(refused))
