"""Defines tables of a report, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.comparison.report import words
from pipelines.comparison.results import Figure


class TableValue(NamedTuple):
    """Holds what stands in a cell.

    Attributes:
      text: the value.
      detail: what is shown smaller beside it, such as an interval.
      span: how many columns it takes; words if more than one.
    """

    text: str
    detail: str = ""
    span: int = 1


@dataclass(frozen=True)
class Heading:
    """Heads a column.

    Attributes:
      text: of the heading.
      number: whether the column has numbers.
      group: a heading above it, shared with its neighbours; empty if there is none.
    """

    text: str
    number: bool = True
    group: str = ""


@dataclass(frozen=True)
class RowGroup:
    """Holds rows that belong together, such as those of one size.

    Attributes:
      title: what they share; empty if they share nothing.
      rows: the first value of each is its heading.
    """

    title: str
    rows: tuple[tuple[TableValue, ...], ...]


@dataclass(frozen=True)
class DataTable:
    """Holds a table.

    Attributes:
      caption: what it shows, with the units.
      headings: of the columns; the first is that of the rows' headings, after that of the groups if these have titles.
      groups: the rows.
      note: what a reader should know.
    """

    caption: str
    headings: tuple[Heading, ...]
    groups: tuple[RowGroup, ...]
    note: str = ""

    @property
    def is_grouped(self) -> bool:
        """Tells whether its groups have titles."""
        return any(group.title for group in self.groups)

    @property
    def has_numbers(self) -> bool:
        """Tells whether a column has numbers."""
        return any(heading.number for heading in self.headings)

    @property
    def heading_groups(self) -> list[tuple[str, int]]:
        """Returns the headings above the headings, and how many columns each spans; none if there are none."""
        found: list[tuple[str, int]] = []
        for heading in self.headings:
            if found and found[-1][0] == heading.group:
                found[-1] = (heading.group, found[-1][1] + 1)
            else:
                found.append((heading.group, 1))
        return found if any(text for text, _ in found) else []


def text(value: str) -> TableValue:
    """Returns a value of words; what is empty becomes a dash."""
    return TableValue(value or words.NONE)


def figure(value: Figure | None, factor: float = 1.0) -> TableValue:
    """Returns a median with its interval; a dash if there is none."""
    if value is None:
        return TableValue(words.NONE)
    return TableValue(words.number(value.median * factor, most=words.DECIMALS), words.interval(value, factor))


def amount(value: Figure | None) -> TableValue:
    """Returns the median of what is counted."""
    return TableValue(words.NONE if value is None else words.count(round(value.median)))


def headings(first: str, *numbers: str) -> tuple[Heading, ...]:
    """Returns headings of columns with numbers, after that of the rows' headings."""
    return (Heading(first, number=False), *(Heading(each) for each in numbers))


def words_table(caption: str, titles: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> DataTable:
    """Returns a table of words, without groups."""
    body = tuple(tuple(text(each) for each in row) for row in rows)
    return DataTable(caption, tuple(Heading(each, number=False) for each in titles), (RowGroup("", body),), note)
