"""Tells how batch runs and streams are spoken of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.comparison.report import words


@dataclass(frozen=True)
class Subject:
    """Holds the words for what is compared.

    Attributes:
      load: what a load is, as the heading of a column.
      single_load: one of them, in a sentence.
      loads: several of them.
      one: word after a load.
      figure: name of the figure by which ways are ranked.
      measure: that figure in words.
      unit: of that figure.
    """

    load: str
    single_load: str
    loads: str
    one: str
    figure: str
    measure: str
    unit: str

    def at(self, load: float) -> str:
        """Returns a load in a sentence."""
        return f"{words.count(load)} {self.one}"


_BATCH = Subject(
    load="rows",
    single_load="size",
    loads="sizes",
    one="rows",
    figure="elapsed_s",
    measure="elapsed time",
    unit="s",
)
_STREAM = Subject(
    load="messages/s",
    single_load="rate",
    loads="rates",
    one="messages a second",
    figure="latency.total.p99",
    measure="latency that 99% of the messages stay below",
    unit="ms",
)


def subject_of(kind: Literal["batch", "stream"]) -> Subject:
    """Returns the words for a kind of comparison."""
    return _BATCH if kind == "batch" else _STREAM
