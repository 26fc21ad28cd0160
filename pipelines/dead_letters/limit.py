"""Bounds how many rows of a run may become dead letters, looked at while it goes on.

A batch run ends early when it is certain that more than `dead_letters.max_fraction`, and more than a tenth, of all
its rows will be dead letters, whatever becomes of the rest. How many rows there are at most is told from the bytes that
were read: those left may hold rows four times as dense. A run that would end just above `max_fraction` goes to its end,
since what it publishes is of use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from inference.errors import Failure, TooManyFailuresError
from pipelines.telemetry.tally import TALLY, ErrorCount

ENOUGH_ROWS = 10_000
"""Rows read before which nothing ends early: a small run is over soon, and its dead letters are there to look at."""

FAR = 0.1
"""Share of all rows below which nothing ends early, however little `max_fraction` allows."""

STREAM_IN_A_ROW = 10_000
"""Dead letters of a stream, and no row written between them, that end it in order, unless `max_fraction` is 1."""

_DENSER = 4
_SHOWN = 3
_MESSAGE_CHARACTERS = 300


@dataclass(frozen=True)
class DeadLetterLimit:
    """Says how many dead letters a run may have; it travels to the workers, each of which goes by what it has done
    itself.

    Attributes:
      max_fraction: largest share of dead letters.
      total_bytes: bytes of all files.
    """

    max_fraction: float
    total_bytes: int

    def is_over(self, more: int = 0) -> bool:
        """Tells whether the run cannot end well if `more` rows fail besides those that are dead letters already."""
        if self.max_fraction >= 1 or TALLY.rows_read < ENOUGH_ROWS:
            return False
        return TALLY.rows_dead_lettered + more > max(self.max_fraction, FAR) * self._most_rows()

    def explain(self, failures: Mapping[int, Failure]) -> str:
        """Says that it is over, and what the rows failed with, those in `failures` among them."""
        dead = TALLY.rows_dead_lettered + len(failures)
        counts = TALLY.errors()
        for failure in failures.values():
            counts.setdefault((failure.stage, failure.error), ErrorCount("", failure.message)).rows += 1
        return (
            f"{dead:,} of the {TALLY.rows_read:,} rows read so far have failed, and dead_letters.max_fraction allows "
            f"{self.max_fraction:.2%}, so the run cannot end well and ends here; most frequent: "
        ) + most_frequent(counts)

    def check(self) -> None:
        """Raises TooManyFailuresError if there are too many dead letters."""
        if self.is_over():
            raise TooManyFailuresError(self.explain({}))

    def _most_rows(self) -> float:
        """Tells how many rows there may be in all."""
        read = TALLY.rows_read
        share = min(1.0, TALLY.bytes_read / self.total_bytes) if self.total_bytes else 1.0
        return read + _DENSER * read * (1 - share) / share if share else math.inf


def most_frequent(counts: Mapping[tuple[str, str], ErrorCount]) -> str:
    """Tells what most dead letters say, with an example of each; on one line."""
    first = sorted(counts.items(), key=lambda item: -item[1].rows)[:_SHOWN]
    said = []
    for (stage, error), count in first:
        example = f"{count.key}: {count.message}" if count.key else count.message
        said.append(f"{count.rows:,} rows with {error} ({stage}), for example {example[:_MESSAGE_CHARACTERS]}")
    return "; ".join(said)
