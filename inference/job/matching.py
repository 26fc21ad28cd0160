"""Matches results with rows: which row has which, which has none, and which results belong to no row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inference.errors import Failure
from inference.job.keys import parsed
from inference.job.result_lines import ERROR, KEY, MESSAGE, output_column

ROW = "row"
"""Column of a group's results: the number of the row in its group."""
NO_RESULT = "NoResultError"


@dataclass(frozen=True)
class GroupResults:
    """Holds the results of some rows of one group.

    Attributes:
      group: the group's name.
      results: column `row` and those of parsed results but the key.
    """

    group: str
    results: pa.Table


@dataclass(frozen=True)
class Unmatched:
    """Counts results that cannot be given to a row.

    Attributes:
      what: what is wrong with them: "unknown" or "repeated".
      count: how many there are.
      example: the key of one of them.
    """

    what: str
    count: int
    example: str


@dataclass(frozen=True)
class Matched:
    """Holds the outputs of the rows of a group.

    Attributes:
      outputs: column of each output, null for rows that failed.
      failures: row -> why it has no prediction.
      unmatched: results that no row can have.
    """

    outputs: dict[str, pa.Array]
    failures: dict[int, Failure]
    unmatched: tuple[Unmatched, ...]


def by_group(results: pa.Table) -> tuple[list[GroupResults], list[Unmatched]]:
    """Sorts parsed results by the group of their rows; those whose key has not the form of one are unknown.

    A line with neither a usable key nor a prediction, such as an error without a key, belongs to no row: the row that
    it was meant for has no result, and says so.
    """
    is_key, groups, rows = parsed(results[KEY].combine_chunks())
    keyless = results.filter(pa.array(~is_key))
    foreign = keyless.filter(pc.is_valid(keyless[KEY]))
    nameless = keyless.filter(pc.and_(pc.is_null(keyless[KEY]), pc.is_null(keyless[ERROR])))
    unmatched = []
    if len(foreign):
        unmatched.append(Unmatched("unknown", len(foreign), str(foreign[KEY][0].as_py())[:60]))
    if len(nameless):
        unmatched.append(Unmatched("unknown", len(nameless), "null"))
    if not len(rows):
        return [], unmatched
    codes = groups.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    sorted_codes = codes[order]
    starts = np.flatnonzero(np.diff(sorted_codes, prepend=-1))
    ends = np.append(starts[1:], len(order))
    kept = results.filter(pa.array(is_key)).drop_columns([KEY])
    if (np.diff(order) != 1).any():
        kept = kept.take(pa.array(order))
        rows = rows[order]
    kept = kept.add_column(0, ROW, pa.array(rows))
    names = groups.dictionary
    return [
        GroupResults(_text(names[int(sorted_codes[low])].as_py()), kept.slice(low, high - low))
        for low, high in zip(starts.tolist(), ends.tolist(), strict=True)
    ], unmatched


def unknown(group: str, parts: Sequence[pa.Table]) -> Unmatched:
    """Says that the results of a group are unknown, as there is no such group."""
    return Unmatched("unknown", sum(map(len, parts)), f"{group}-{int(parts[0][ROW][0].as_py()):07d}")


def match(
    group: str, rows: int, parts: Sequence[pa.Table], schema: pa.Schema, missing: str, without: Sequence[int] = ()
) -> Matched:
    """Gives the rows of a group their results.

    Args:
      group: its name.
      rows: how many rows it has.
      parts: results of it, in any order.
      schema: of parsed results.
      missing: what to say of a row that has no result.
      without: rows that have no instance, and so no result.
    """
    expected = np.ones(rows, np.bool_)
    expected[list(without)] = False
    outputs = [field.name for field in schema if field.name not in (KEY, ERROR, MESSAGE)]
    unmatched = []
    numbers = np.empty(0, np.int64)
    if parts:
        joined = pa.concat_tables(parts).combine_chunks()
        numbers = joined[ROW].to_numpy()
        inside = (numbers >= 0) & (numbers < rows)
        inside[inside] = expected[numbers[inside]]
        if not inside.all():
            unmatched.append(Unmatched("unknown", int((~inside).sum()), f"{group}-{int(numbers[~inside][0]):07d}"))
            joined, numbers = joined.filter(pa.array(inside)), numbers[inside]
    counts = np.bincount(numbers, minlength=rows) if len(numbers) else np.zeros(rows, np.int64)
    if (repeated := counts > 1).any():
        place = int(np.flatnonzero(repeated)[0])
        unmatched.append(Unmatched("repeated", int((counts[repeated] - 1).sum()), f"{group}-{place:07d}"))
    place_of = np.full(rows, -1, np.int64)
    place_of[numbers] = np.arange(len(numbers))
    if not len(numbers):
        columns = {name: pa.nulls(rows, schema.field(name).type) for name in outputs}
        return Matched(_renamed(columns), _without_result(np.flatnonzero(expected), missing), tuple(unmatched))
    index = pa.array(np.ma.masked_array(place_of, mask=place_of < 0), pa.int64())
    columns = {name: _taken(joined[name], index) for name in outputs}
    failures = _without_result(np.flatnonzero((place_of < 0) & expected), missing)
    if joined[ERROR].null_count < len(joined):
        for place in np.flatnonzero(joined[ERROR].is_valid().to_numpy()).tolist():
            row = int(numbers[place])
            failures[row] = Failure("predict", joined[ERROR][place].as_py(), joined[MESSAGE][place].as_py() or "")
    return Matched(_renamed(columns), dict(sorted(failures.items())), tuple(unmatched))


def _taken(column: pa.ChunkedArray, index: pa.Array) -> pa.Array:
    found = column.take(index)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _renamed(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    prefix = len(output_column(""))
    return {name[prefix:]: column for name, column in columns.items()}


def _without_result(rows: npt.NDArray[np.int64], message: str) -> dict[int, Failure]:
    return dict.fromkeys(rows.tolist(), Failure("predict", NO_RESULT, message))


def _text(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")
