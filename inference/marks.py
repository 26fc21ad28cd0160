"""Marks what is known of a batch's rows beside its columns: which failed, and which rows of an earlier batch they were.

It travels in the metadata of the batch's schema, so no name that a source or a model gives to a column is in the way.
Operations on batches (`slice`, `take`, `filter`) hand the metadata on as it is: look at it before, mark again after.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inference.errors import Failure

Rows = npt.NDArray[np.int64]

_FAILURES = b"inference.failures"
_ROWS = b"inference.rows"


def make_batch(
    columns: Mapping[str, pa.Array], failures: Mapping[int, Failure] | None = None, rows: Rows | None = None
) -> pa.RecordBatch:
    """Makes a batch of columns, marked with the rows of it that failed, and with the rows that its rows were."""
    metadata = {}
    if failures:
        metadata[_FAILURES] = _encoded(failures)
    if rows is not None:
        metadata[_ROWS] = np.ascontiguousarray(rows, "<i8").tobytes()
    fields = [pa.field(name, array.type) for name, array in columns.items()]
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields, metadata=metadata or None))


def taken(batch: pa.RecordBatch, rows: Rows) -> pa.RecordBatch:
    """Takes rows of a batch, without its marks."""
    return batch.replace_schema_metadata(None).take(pa.array(rows, pa.int64()))


def numbered(batch: pa.RecordBatch, rows: Rows) -> pa.RecordBatch:
    """Marks a batch with the rows of an earlier batch that its rows were, in place of all other marks."""
    return batch.replace_schema_metadata({_ROWS: np.ascontiguousarray(rows, "<i8").tobytes()})


def failures_of(batch: pa.RecordBatch) -> dict[int, Failure]:
    """Lists the rows of a batch that failed, and why, in their order."""
    found = (batch.schema.metadata or {}).get(_FAILURES)
    return {} if found is None else _decoded(found)


def rows_of(batch: pa.RecordBatch) -> Rows:
    """Tells which rows of an earlier batch those of a batch were, int64 [rows]; its own numbers if it has no mark."""
    found = (batch.schema.metadata or {}).get(_ROWS)
    if found is None:
        return np.arange(batch.num_rows, dtype=np.int64)
    return np.frombuffer(found, "<i8").astype(np.int64, copy=False)


def _encoded(failures: Mapping[int, Failure]) -> bytes:
    """Rows beside the number of their failure: what all rows fail with is there once."""
    numbers: dict[Failure, int] = {}
    pairs = [(row, numbers.setdefault(failures[row], len(numbers))) for row in sorted(failures)]
    return json.dumps([[list(vars(failure).values()) for failure in numbers], pairs]).encode()


def _decoded(encoded: bytes) -> dict[int, Failure]:
    kinds: Sequence[Sequence[object]]
    kinds, pairs = json.loads(encoded)
    made = [Failure(*fields) for fields in kinds]  # type: ignore[arg-type]  # as `_encoded` wrote them
    return {row: made[number] for row, number in pairs}
