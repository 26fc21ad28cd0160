"""The messages of one pull, and where their rows come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.rows import Origin, Positions

Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Messages:
    """The messages of one pull, in the order they came: a micro-batch, formed by the source.

    Attributes:
      source: where they come from, as a person would write it: a subscription, a topic and partition.
      payloads: their bytes, binary [messages].
      positions: their numbers there, int64 [messages]: an offset, a message number.
      event_us: when what they tell happened, microseconds since the epoch, int64 [messages].
      received_us: when the first of them was received.
      pulled_us: when the pull was complete: the difference is the time that the batch was waited for.
      keys: the attribute that identifies each, string [messages]; None if the source has none.
      attributes: what came with each beside its payload, map<string, binary> [messages]; None if nobody wants it.
    """

    source: str
    payloads: pa.Array
    positions: Positions
    event_us: Times
    received_us: int
    pulled_us: int
    keys: pa.Array | None = None
    attributes: pa.MapArray | None = None

    def __len__(self) -> int:
        return len(self.payloads)


@dataclass(frozen=True)
class MessageOrigin(Origin):
    """Rows of a batch that was decoded from messages, one row a message.

    Attributes:
      messages: all messages of the pull.
      rows: which of them are in the batch, int64 indices; None for all.
      decoded_us: when they were decoded, microseconds since the epoch.
    """

    file: str
    format: dict[str, Any]
    messages: Messages
    rows: npt.NDArray[np.int64] | None = None
    decoded_us: int = 0

    @property
    def nbytes(self) -> int:
        return int(self.messages.payloads.nbytes)

    def _of(self, row: int) -> int:
        return row if self.rows is None else int(self.rows[row])

    def positions(self) -> Positions:
        found = self.messages.positions
        return found if self.rows is None else found[self.rows]

    def payload(self, row: int) -> bytes:
        found: bytes = self.messages.payloads[self._of(row)].as_py()
        return found

    def event_us(self) -> Times:
        """When what the rows tell happened, microseconds since the epoch, int64 [rows]."""
        found = self.messages.event_us
        return found if self.rows is None else found[self.rows]

    def attributes(self, rows: Positions) -> pa.MapArray | None:
        """What came with rows beside their payloads, map<string, binary> [rows]."""
        found = self.messages.attributes
        return None if found is None else found.take(pa.array(rows if self.rows is None else self.rows[rows]))

    def names(self, rows: Positions) -> pa.Array:
        """The keys of rows; where the source has none, <source>:<position>."""
        keys = self.messages.keys
        if keys is None:
            return super().names(rows)
        return keys.take(pa.array(rows if self.rows is None else self.rows[rows]))
