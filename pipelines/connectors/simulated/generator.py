"""Makes messages to send, with what goes wrong in streams: duplicates, malformed ones, late ones.

What happens to a message depends on the seed and its number only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from pipelines.clock import timestamps
from pipelines.connectors.simulated.natality import births_at, hashed, mixed, prepare, source_ids

_RECENT = 1_000
_MINUTE_US = 60_000_000
_GARBAGE = b'"#\xff'
"""Ends or begins a string, then is outside of one or is not UTF-8: never JSON, wherever it stands."""


@dataclass(frozen=True)
class Made:
    """Makes messages, in order.

    Attributes:
      payloads: their bytes.
      keys: what identifies each; a message that repeats another has its key.
      event_us: when what they tell happened, microseconds since the epoch.
    """

    payloads: list[bytes] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    event_us: list[int] = field(default_factory=list)

    def __add__(self, other: Made) -> Made:
        return Made(self.payloads + other.payloads, self.keys + other.keys, self.event_us + other.event_us)

    def after(self, first: int) -> Made:
        """Returns those from an index on; a negative one counts from the end."""
        return Made(self.payloads[first:], self.keys[first:], self.event_us[first:])

    def repeat(self, of: int, at: int) -> None:
        """Puts one in place of another."""
        self.payloads[at], self.keys[at], self.event_us[at] = self.payloads[of], self.keys[of], self.event_us[of]

    def lines(self) -> bytes:
        """Returns the payloads, newlines included."""
        return b"".join(payload + b"\n" for payload in self.payloads)


Row = tuple[bytes, bool]
"""A row of a file, and whether it is a JSON object; if so, without its opening brace and its timestamp."""


class Lines:
    """Makes the messages of a stream, in order.

    Args:
      seed: of the values and of what goes wrong.
      duplicates: share of the messages that repeat one of the 1,000 before them.
      malformed: share that is cut or garbled.
      late: share whose timestamp is 2 to 30 minutes in the past.
      rows: what is sent again and again, from `rows_of`; None: births.
    """

    def __init__(self, seed: int, duplicates: float, malformed: float, late: float, rows: list[Row] | None) -> None:
        self._seed = seed
        self._ends = np.cumsum([duplicates, malformed, late])
        self._rows = rows
        self._recent = Made()
        prepare()

    def make(self, first: int, event_us: Any) -> Made:
        """Returns the messages from number `first`, which must be where the last call ended.

        Args:
          first: number of the first message.
          event_us: their event times, microseconds since the epoch, int64 [n].
        """
        numbers = np.arange(first, first + len(event_us))
        # Other draws than those of the births' values.
        words = mixed(hashed(numbers, ~self._seed))
        duplicate, malformed, late, _ = (
            np.searchsorted(self._ends, (words >> np.uint64(11)) / 2**53, side="right") == kind for kind in range(4)
        )
        draws = mixed(words)
        minutes = 2 + (draws % np.uint64(29)).astype(np.int64)
        event_us = np.where(late, event_us - minutes * _MINUTE_US, event_us)
        payloads = self._payloads(numbers, event_us)
        for n in np.flatnonzero(malformed).tolist():
            payloads[n] = _spoiled(payloads[n], int(draws[n]))
        before = len(self._recent.payloads)
        made = self._recent + Made(payloads, self._keys(numbers), event_us.tolist())
        for n in np.flatnonzero(duplicate).tolist():
            # There is none before the first.
            if reach := min(_RECENT, first + n):
                made.repeat(of=before + n - 1 - int(draws[n]) % reach, at=before + n)
        self._recent = made.after(-_RECENT)
        return made.after(before)

    def _keys(self, numbers: Any) -> list[str]:
        """Of births, their own; of rows that come again and again, their numbers."""
        found: list[str] = (
            source_ids(numbers) if self._rows is None else pa.array(numbers).cast(pa.string())
        ).to_pylist()
        return found

    def _payloads(self, numbers: Any, event_us: Any) -> list[bytes]:
        if self._rows is None:
            made: list[bytes] = births_at(numbers, self._seed, event_us).to_pylist()
            return made
        times = timestamps(event_us).cast(pa.binary()).to_pylist()
        rows = (self._rows[n % len(self._rows)] for n in numbers.tolist())
        return [
            b'{"timestamp": "' + time + b'"' + row if is_object else row
            for time, (row, is_object) in zip(times, rows, strict=True)
        ]


def rows_of(path: str) -> list[Row]:
    """Returns the rows of a file: each row of a .csv file as a JSON object, else each line that is not empty.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not what it should be, or has no rows.
    """
    content = Path(path).read_bytes()
    if path.lower().endswith(".csv"):
        content = _csv_as_json(content)
    rows = [_row(line.strip()) for line in content.splitlines() if line.strip()]
    if not rows:
        raise ValueError("has no rows")
    return rows


def _csv_as_json(content: bytes) -> bytes:
    import polars as pl

    try:
        return pl.read_csv(content, infer_schema_length=None).write_ndjson().encode()
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"not CSV: {str(error).splitlines()[0]}") from None


def _row(line: bytes) -> Row:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line, False
    if not isinstance(value, dict):
        return line, False
    if "timestamp" in value:
        del value["timestamp"]
        line = orjson.dumps(value)
    return (b", " if value else b"") + line[1:], True


def _spoiled(line: bytes, draw: int) -> bytes:
    """Half of them are cut, half have garbage within."""
    at = 1 + (draw >> 1) % max(1, len(line) - 1)
    return line[:at] if draw & 1 else line[:at] + _GARBAGE + line[at:]
