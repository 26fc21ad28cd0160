"""Defines the part of `results.json` that says what ways cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ResultPart(BaseModel):
    """Refuses unknown members; what was read cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CostOfWay(ResultPart):
    """Says what a way costs.

    Attributes:
      way: name of the way.
      runs: cost of one run as it was measured, by load as text, such as "10000"; for streams of an hour at that rate.
      month: cost of a month at the stated volume; None if it is not known.
      parts: what that is made of, by name, such as "workers", "nodes", "job", "messages".
      curve: (volume, cost of a month) from little to much.
      fleet: what that takes at the stated volume, in words, such as "2 nodes n1-standard-2, all month".
      missing: names of prices that are missing; the costs are None or leave these out.
    """

    way: str
    runs: dict[str, Positive] = {}
    month: Positive | None = None
    parts: dict[str, Positive] = {}
    curve: tuple[tuple[Positive, Positive], ...] = ()
    fleet: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class BreakEven(ResultPart):
    """Says where the cheapest way changes.

    Attributes:
      volume: rows a day, or messages a second.
      below: the cheapest way below it.
      above: the cheapest way above it.
    """

    volume: Positive
    below: str
    above: str


class WayCosts(ResultPart):
    """Says what the ways cost, at the prices of a file.

    Attributes:
      currency: of all amounts.
      volume: the stated volume.
      stated: whether somebody stated it; else it is the largest load.
      unit: `rows a day` or `messages a second`.
      ways: of each way that is ranked.
      break_evens: where the cheapest way changes, from little to much.
      prices: what each price was, with date and source, in words.
      unverified: names of prices that nobody has verified.
      assumptions: what the costs take for granted, one sentence each.
    """

    currency: str
    volume: Positive
    stated: bool = True
    unit: str
    ways: tuple[CostOfWay, ...]
    break_evens: tuple[BreakEven, ...] = ()
    prices: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
