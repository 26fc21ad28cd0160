"""Converts columns whose types are not the planned ones, if no value changes by it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inference.columns.exact import coerce_exactly


def as_planned(
    batch: pa.RecordBatch, types: Iterable[tuple[str, pa.DataType]]
) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Converts columns whose type is not the planned one, dictionaries aside, if nothing of a value changes.

    Args:
      batch: the rows.
      types: name and planned type of columns.

    Returns:
      The batch with these columns converted, null where that cannot be; and why it cannot, by the index of the row.

    >>> as_planned(pa.record_batch({"n": [1.0, 2.5]}), [("n", pa.int64())])[1]
    {1: "column 'n': 2.5 would be changed by becoming a int64; write it as a type that holds both"}
    """
    failures: dict[int, str] = {}
    for name, type in types:
        if _alike(batch[name].type, type):
            continue
        array, messages = coerce_exactly(batch[name], type)
        batch = batch.set_column(batch.schema.get_field_index(name), name, array)
        for index, message in messages.items():
            failures.setdefault(index, f"column '{name}': {message}; write it as a type that holds both")
    return batch, dict(sorted(failures.items()))


def without(batch: pa.RecordBatch, failures: Iterable[int]) -> tuple[pa.RecordBatch, npt.NDArray[np.int64]]:
    """Returns the other rows of a batch, and their indices."""
    kept = np.setdiff1d(np.arange(batch.num_rows, dtype=np.int64), np.fromiter(failures, np.int64))
    return batch.take(pa.array(kept)), kept


def _alike(type: pa.DataType, planned: pa.DataType) -> bool:
    """Tells whether two types are the same but for dictionaries."""
    one, other = (t.value_type if pa.types.is_dictionary(t) else t for t in (type, planned))
    return bool(one == other)
