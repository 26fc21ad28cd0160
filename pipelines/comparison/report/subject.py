"""Tells how batch runs and streams are spoken of."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pipelines.comparison.report import words
from pipelines.comparison.results import Results


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

    @property
    def short(self) -> str:
        """Returns the figure as the heading of an axis or a column."""
        return "elapsed seconds" if self.unit == "s" else f"{self.statistic}, ms"

    @property
    def statistic(self) -> str:
        """Returns which statistic of a latency the figure is, such as `p99`."""
        return self.figure.rpartition(".")[2]


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
    measure="latency",
    unit="ms",
)


def subject_of(results: Results) -> Subject:
    """Returns the words for what a comparison is of."""
    if results.kind == "batch":
        return _BATCH
    figure = results.rankings[0].figure if results.rankings else _STREAM.figure
    percent = re.fullmatch(r"latency\.total\.p(\d+)", figure)
    measure = f"latency that {percent[1]}% of the messages stay below" if percent else figure
    return replace(_STREAM, figure=figure, measure=measure)
