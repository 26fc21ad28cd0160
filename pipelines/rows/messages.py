"""Holds the messages of one pull, and where their rows come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.rows.origin import Origin, Positions

Times = npt.NDArray[np.int64]

KEY_NAME = "source_id"
"""Of the attribute, or header, with a row's key, in the messages that are written here."""


@dataclass(frozen=True)
class Messages:
    """Holds the messages of one pull, in the order they came: a micro-batch, formed by the source.

    Attributes:
      source: where they come from, as a person would write it: a subscription, a topic and partition.
      payloads: their bytes, binary [messages].
      positions: their numbers there, int64 [messages]: an offset, a message number.
      event_us: when what they tell happened, microseconds since the epoch, int64 [messages].
      received_us: when the first of them was received.
      pulled_us: when the pull was complete: the difference is the time that the batch was waited for.
      keys: the attribute that identifies each, string [messages]; None if the source has none.
      attributes: what came with each beside its payload, map<string, binary> [messages]; None if nobody wants it.
      files: the place where each has its number, dictionary of strings [messages]; None if that is `source`.
    """

    source: str
    payloads: pa.Array
    positions: Positions
    event_us: Times
    received_us: int
    pulled_us: int
    keys: pa.Array | None = None
    attributes: pa.MapArray | None = None
    files: pa.DictionaryArray | None = None

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def rows_per_second(self) -> float:
        """Returns the rate of the events that they tell of."""
        if len(self) < 2:
            return 0.0
        return (len(self) - 1) / max(1e-6, float(self.event_us.max() - self.event_us.min()) / 1e6)


@dataclass(frozen=True)
class MessageOrigin(Origin):
    """Describes rows of a batch that was decoded from messages, one row a message.

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
        """Returns when what the rows tell happened, microseconds since the epoch, int64 [rows]."""
        found = self.messages.event_us
        return found if self.rows is None else found[self.rows]

    def attributes(self, rows: Positions) -> pa.MapArray | None:
        """Returns what came with rows beside their payloads, map<string, binary> [rows]."""
        found = self.messages.attributes
        return None if found is None else found.take(pa.array(rows if self.rows is None else self.rows[rows]))

    def source(self, row: int) -> str:
        """Returns where row `row` comes from: <source>:<position>."""
        files = self.messages.files
        return super().source(row) if files is None else f"{files[self._of(row)]}:{self.positions()[row]}"

    def names(self, rows: Positions) -> pa.Array:
        """Returns the keys of rows; where the source has none, <source>:<position>."""
        keys, files = self.messages.keys, self.messages.files
        if keys is None:
            if files is None:
                return super().names(rows)
            places = files.take(pa.array(rows if self.rows is None else self.rows[rows])).dictionary_decode()
            return pc.binary_join_element_wise(places, pa.array(self.positions()[rows]).cast(pa.string()), ":")
        return keys.take(pa.array(rows if self.rows is None else self.rows[rows]))
