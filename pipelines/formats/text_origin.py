"""Tells where the rows of a block of text come from, and gives their bytes back."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.formats.dialect import Dialect, Spans
from pipelines.rows.origin import Origin, Positions


class TextOrigin(Origin):
    """Represents rows of a block of text.

    Args:
      file: path of the file.
      base: position of the block in the (decompressed) file, in bytes.
      raw: the block.
      dialect: how its rows are told apart.
      format: see Origin.
      rows: the rows of the block that are in the batch, as int64 indices; None means all of them.
    """

    def __init__(
        self,
        file: str,
        base: int,
        raw: bytes,
        dialect: Dialect,
        format: dict[str, Any],
        rows: Positions | None = None,
    ) -> None:
        self.file = file
        self.format = format
        self._base = base
        self._raw = raw
        self._dialect = dialect
        self._rows = rows
        self._spans: Spans | None = None

    @property
    def nbytes(self) -> int:
        return len(self._raw)

    @property
    def end(self) -> int:
        """Returns the position just behind the block in the (decompressed) file, in bytes."""
        return self._base + len(self._raw)

    def spans(self) -> Spans:
        """Returns where the rows of the batch stand in the block."""
        if self._spans is None:
            spans = self._dialect.spans(self._raw)
            if self._rows is not None:
                spans = Spans(spans.starts[self._rows], spans.ends[self._rows])
            self._spans = spans
        return self._spans

    def part(self, low: int, high: int) -> TextOrigin:
        """Returns the origin of rows `low` to `high` of the batch."""
        rows = np.arange(low, high, dtype=np.int64) if self._rows is None else self._rows[low:high]
        return TextOrigin(self.file, self._base, self._raw, self._dialect, self.format, rows)

    def only(self, kept: Positions) -> TextOrigin:
        """Returns the origin of some rows of the batch."""
        rows = kept if self._rows is None else self._rows[kept]
        return TextOrigin(self.file, self._base, self._raw, self._dialect, self.format, rows)

    def positions(self) -> Positions:
        return self.spans().starts + self._base

    def payload(self, row: int) -> bytes:
        spans = self.spans()
        return self._raw[spans.starts[row] : spans.ends[row]]
