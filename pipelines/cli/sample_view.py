"""Shows the first rows of a source for `check`: what the model gets of them, and which become dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.plan import Plan
from pipelines.planning.sampling import Sample, tensors

_SHOWN_ROWS = 5

Table = Callable[[Any, str, list[str], list[list[str]]], None]
"""Prints a table on a console: its title, the names of its columns, its rows."""


def findings(sample: Sample) -> dict[str, Any]:
    """Returns the same as `show` prints, for --json."""
    return {
        "sampled_rows": sample.read,
        "sampled_dead_letters": [{"row": row, "reason": reason} for row, reason in sample.rejected],
        "tensors": tensors(sample),
    }


def problems(plan: Plan, sample: Sample) -> list[str]:
    """Says that all of the first rows would become dead letters, if that is so, and the run could not end well."""
    if not sample.read or len(sample.rejected) < sample.read or plan.config.dead_letters.max_fraction >= 1:
        return []
    row, reason = sample.rejected[0]
    what = "the first row" if sample.read == 1 else f"each of the first {sample.read:,} rows"
    return [f"source: {what} would become a dead letter; {row}: {reason}"]


def show(console: Any, print_table: Table, sample: Sample) -> None:
    """Prints the tensors of a sample, and its dead letters with their reasons."""
    rows = "row" if sample.read == 1 else f"{sample.read:,} rows"
    if described := tensors(sample):
        cells = [list(tensor.values()) for tensor in described]
        print_table(console, f"what the model gets of the first {rows}", list(described[0]), cells)
    if not sample.rejected:
        return
    console.print(f"of the first {rows}, {len(sample.rejected):,} would become dead letters:")
    show_reasons(console, sample.rejected)


def show_reasons(console: Any, rows: Sequence[tuple[str, str]]) -> None:
    """Prints the first of some rows, each with the reason for which it fails, and how many more there are."""
    for row, reason in rows[:_SHOWN_ROWS]:
        console.print(f"  {row}: {reason}")
    others = Counter(reason for _, reason in rows[_SHOWN_ROWS:])
    if others:
        reason, count = others.most_common(1)[0]
        often = f"; the most frequent reason, {count:,} times: {reason}" if count > 1 else ""
        console.print(f"  and {others.total():,} more{often}")
