"""Compares what two ways have written, row by row: values, missing and repeated rows, rows that failed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import is_list, leaf_of, list_lengths
from pipelines.comparison.results import Difference, Disagreement, Parity
from pipelines.config.comparison import Tolerance

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]

_MOST_EXAMPLES = 10
_SHOWN_CHARACTERS = 80
_ERROR_CHARACTERS = 200
NOTHING_WRITTEN = "it predicted none"
"""Begins the reason why a way is not compared that has predicted no row."""
_DEFAULTS = {
    pa.float16(): (1e-2, 1e-3),
    pa.float32(): (1e-4, 1e-5),
    pa.float64(): (1e-6, 1e-8),
}
"""Tolerances of floats, relative and absolute: of batches of other sizes, sums are added up in another order."""


@dataclass(frozen=True)
class Written:
    """Holds what a way has written.

    Attributes:
      table: its rows: the key first, then the model's outputs.
      failed: keys of its dead letters.
      errors: why these failed, one for each.
    """

    table: pa.Table
    failed: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def keys(self) -> list[str]:
        """Returns the keys of the rows, as text."""
        return [str(key) for key in self.table.column(0).to_pylist()]


def nothing_written(written: Written) -> str:
    """Says that a way has predicted no row, and the most frequent reason; empty if it has predicted one, or read none.

    >>> nothing_written(Written(pa.table({"key": []}), ("a", "b", "c"), ("no JSON", "too long", "no JSON")))
    'it predicted none of 3 rows, all are dead letters; most frequent: no JSON (2 rows)'
    """
    if written.table.num_rows or not written.failed:
        return ""
    said = f"{NOTHING_WRITTEN} of {len(written.failed):,} rows, all are dead letters"
    if not written.errors:
        return said
    error, rows = Counter(written.errors).most_common(1)[0]
    return f"{said}; most frequent: {_shown(error, _ERROR_CHARACTERS)} ({rows:,} row{'' if rows == 1 else 's'})"


def tolerance_of(output: pa.Field, given: Mapping[str, Tolerance]) -> Tolerance:
    """Returns how far values of an output may differ: as given for its name, else for its type, else by default."""
    leaf = leaf_of(output.type)
    name = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float64"}.get(leaf, str(leaf))
    for key in (output.name, name):
        if key in given:
            return given[key]
    relative, absolute = _DEFAULTS.get(leaf, (0.0, 0.0))
    return Tolerance(absolute=absolute, relative=relative)


def compare(
    way: str,
    reference_way: str,
    here: Written,
    reference: Written,
    outputs: Sequence[pa.Field],
    tolerance: Mapping[str, Tolerance],
) -> Parity:
    """Compares a way with the reference.

    Rows are joined by key; rows of one key are paired in the order of their values, so that a repeated row shows.

    Args:
      way: its name.
      reference_way: name of the reference.
      here: what the way has written.
      reference: what the reference has written.
      outputs: the model's outputs with the types that the model gives.
      tolerance: how far values may differ, by output or by type.
    """
    numbers_here, numbers_there = _numbered(here), _numbered(reference)
    both = [key for key in numbers_there if key in numbers_here]
    rows_here = np.array([numbers_here[key] for key in both], np.int64)
    rows_there = np.array([numbers_there[key] for key in both], np.int64)
    differences, examples = [], []
    for output in outputs:
        limit = tolerance_of(output, tolerance)
        difference, over = _difference(
            output.name, _taken(here, output.name, rows_here), _taken(reference, output.name, rows_there), limit
        )
        differences.append(difference)
        for row in np.flatnonzero(over)[:_MOST_EXAMPLES].tolist():
            shown = [
                _shown(written.table.column(output.name)[int(rows[row])].as_py())
                for written, rows in ((reference, rows_there), (here, rows_here))
            ]
            examples.append(Disagreement(key=both[row][0], what=output.name, reference=shown[0], here=shown[1]))
    failed_here, failed_there = Counter(here.failed), Counter(reference.failed)
    written_here, written_there = Counter(here.keys), Counter(reference.keys)
    here_only = [key for key in failed_here if failed_there[key] < failed_here[key] and written_there[key]]
    there_only = [key for key in failed_there if failed_here[key] < failed_there[key] and written_here[key]]
    all_here, all_there = written_here + failed_here, written_there + failed_there
    missing = list((all_there - all_here).elements())
    extra = list((all_here - all_there).elements())
    repeated = [key for key in extra if all_there[key]]
    extra = [key for key in extra if not all_there[key]]
    for what, keys in (
        ("missing", missing),
        ("extra", extra),
        ("repeated", repeated),
        ("failed here only", here_only),
        ("failed in the reference only", there_only),
    ):
        examples += [Disagreement(key=key, what=what) for key in keys[:_MOST_EXAMPLES]]
    is_same = not (missing or extra or repeated or here_only or there_only)
    return Parity(
        way=way,
        reference=reference_way,
        rows=len(both),
        differences=tuple(differences),
        missing=len(missing),
        extra=len(extra),
        repeated=len(repeated),
        failed_here_only=len(here_only),
        failed_in_reference_only=len(there_only),
        failed_in_both=sum((failed_here & failed_there).values()),
        examples=tuple(examples[:_MOST_EXAMPLES]),
        agrees=is_same and not any(difference.over for difference in differences),
    )


def _numbered(written: Written) -> dict[tuple[str, int], int]:
    """The rows by key and how many of that key come before."""
    keys = written.keys
    order: Iterable[int] = range(len(keys))
    if len(set(keys)) < len(keys):
        # Rows of one key are paired by their values, as their order says nothing.
        rows = [json.dumps(row, default=str) for row in written.table.to_pylist()]
        order = sorted(order, key=lambda row: rows[row])
    before: Counter[str] = Counter()
    found = {}
    for row in order:
        key = keys[row]
        found[key, before[key]] = row
        before[key] += 1
    return found


def _taken(written: Written, name: str, rows: Indices) -> pa.Array:
    column = written.table.column(name).take(pa.array(rows))
    found = column.combine_chunks()
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _difference(name: str, here: pa.Array, there: pa.Array, limit: Tolerance) -> tuple[Difference, Bools]:
    """How far values differ, and in which rows more than they may."""
    rows = len(here)
    over = np.zeros(rows, np.bool_)
    if is_list(here.type) and is_list(there.type):
        empty = [np.asarray(each.is_null()) for each in (here, there)]
        unlike = (list_lengths(here) != list_lengths(there)) | (empty[0] != empty[1])
        # Lists of other lengths differ; what is in the others is compared.
        return _of_lists(name, here, there, unlike, limit)
    if not (_is_number(here.type) and _is_number(there.type)):
        over |= np.array([one != other for one, other in zip(here.to_pylist(), there.to_pylist(), strict=True)], bool)
        worst = float(over.any())
        return _told(name, rows, np.array([worst]), np.array([worst]), over, limit), over
    distance, relative, over = _distances(here, there, limit)
    return _told(name, rows, distance, relative, over, limit), over


def _of_lists(name: str, here: pa.Array, there: pa.Array, unlike: Bools, limit: Tolerance) -> tuple[Difference, Bools]:
    alike = np.flatnonzero(~unlike)
    parts = [each.take(pa.array(alike)) for each in (here, there)]
    owners = alike
    while is_list(parts[0].type) and is_list(parts[1].type):
        lengths = [list_lengths(each) for each in parts]
        if not np.array_equal(lengths[0], lengths[1]):
            # Inner lists differ in their lengths: compare them as values.
            over = unlike.copy()
            texts = [each.to_pylist() for each in (here, there)]
            over |= np.array([one != other for one, other in zip(*texts, strict=True)], bool)
            worst = np.array([float(over.any())])
            return _told(name, len(here), worst, worst, over, limit), over
        owners = np.repeat(owners, lengths[0])
        parts = [pc.list_flatten(each) for each in parts]
    over = unlike.copy()
    if not (_is_number(parts[0].type) and _is_number(parts[1].type)):
        differs = np.array([a != b for a, b in zip(parts[0].to_pylist(), parts[1].to_pylist(), strict=True)], bool)
        over[owners[differs]] = True
        worst = np.array([float(over.any())])
        return _told(name, len(here), worst, worst, over, limit), over
    distance, relative, far = _distances(parts[0], parts[1], limit)
    over[owners[far]] = True
    return _told(name, len(here), distance, relative, over, limit), over


def _distances(here: pa.Array, there: pa.Array, limit: Tolerance) -> tuple[Any, Any, Bools]:
    one, other = (np.asarray(each.cast(pa.float64(), safe=False).fill_null(np.nan)) for each in (here, there))
    empty = [np.asarray(each.is_null()) for each in (here, there)]
    whole = pa.types.is_integer(here.type) and pa.types.is_integer(there.type)
    # Large whole numbers that differ may be equal as floats.
    equal = np.asarray(pc.equal(here, there).fill_null(False)) if whole else one == other
    same = equal | (np.isnan(one) & np.isnan(other) & (empty[0] == empty[1]))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        distance = np.where(same, 0.0, np.maximum(np.abs(one - other), 1.0 if whole else 0.0))
        over = ~same & ~(np.isfinite(distance) & (distance <= limit.absolute + limit.relative * np.abs(other)))
        relative = np.where(same, 0.0, distance / np.abs(other))
    return distance, relative, over


def _told(name: str, rows: int, distance: Any, relative: Any, over: Bools, limit: Tolerance) -> Difference:
    finite = distance[np.isfinite(distance)]
    ratios = relative[np.isfinite(relative)]
    return Difference(
        output=name,
        rows=rows,
        greatest=float(finite.max(initial=0.0)),
        typical=float(np.median(finite)) if len(finite) else 0.0,
        greatest_relative=float(ratios.max(initial=0.0)),
        over=int(over.sum()),
        absolute=limit.absolute,
        relative=limit.relative,
    )


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_floating(type) or pa.types.is_integer(type))


def _shown(value: Any, most: int = _SHOWN_CHARACTERS) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def in_words(found: Parity) -> str:
    """Says on one line whether a way agrees with the reference, and how not."""
    if found.error:
        return found.error
    if found.way == found.reference:
        return f"the reference, {found.rows:,} rows"
    if found.agrees:
        greatest = max((each.greatest for each in found.differences), default=0.0)
        return f"agrees in {found.rows:,} rows" + (f", greatest difference {greatest:.2g}" if greatest else "")
    counts = [
        (found.missing, "missing"),
        (found.extra, "that the reference does not have"),
        (found.repeated, "repeated"),
        (found.failed_here_only, "that fail in this way only"),
        (found.failed_in_reference_only, "that fail in the reference only"),
    ]
    said = [f"{each.over:,} rows whose {each.output} differs" for each in found.differences if each.over]
    said += [f"{count:,} rows {what}" for count, what in counts if count]
    return f"disagrees with {found.reference}: {', '.join(said)}"
