"""Predictions for record batches, whatever calls the model: coercion, slicing, bisecting, reassembly.

A handler gives `call`, which turns the input arrays of some rows into output arrays. All else is the same for
every handler: a batch goes in, a batch of the same rows in the same order comes out, with the outputs as
further columns and, if rows failed, marked with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inference.call_size import CallSize
from inference.calls import Call, Explain, Outlook, call_in_slices
from inference.columns.bound import Binding
from inference.columns.coercion import is_list
from inference.columns.inputs import prepare
from inference.errors import Failure
from inference.marks import make_batch
from inference.tensors import shape_key

Rows = npt.NDArray[np.int64]


def predict_batches(
    batches: Sequence[pa.RecordBatch],
    binding: Binding,
    outputs: pa.Schema,
    call: Call,
    max_rows: int,
    explain: Explain,
    pool: Executor | None = None,
    outlook: Outlook | None = None,
    call_size: CallSize | None = None,
) -> list[pa.RecordBatch]:
    """Predicts all rows of all batches, in calls of at most `max_rows` rows that may span batches.

    Args:
      batches: input batches of one schema.
      binding: how their columns feed the model.
      outputs: names and types of the outputs.
      call: calls the model; may raise for rows that it cannot predict.
      max_rows: rows in a call.
      explain: what an exception of `call` for a single row means for that row. May raise it again, if it is
        no fault of the row.
      pool: makes the calls at the same time, if given.
      outlook: tells when so many rows have failed that it is not worth going on; without it, all rows are tried.
      call_size: bounds calls by bytes too, and by what the model had no memory for.

    An exception's attribute `parts` says into how many parts its rows are cut to be tried again: 2 where there is none,
    1 if all of them fail with it. An EndpointConfigError is raised.

    Returns:
      For each batch its rows with the output columns (null for a failed row), marked with the rows that failed.

    Raises:
      TooManyFailuresError, EndpointConfigError: the outlook says that the run cannot end well.
    """
    outlook = outlook or Outlook()
    prepared = [prepare(batch, binding) for batch in batches]
    sizes = [batch.num_rows for batch in batches]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    failures = {int(starts[i]) + row: f for i, (_, failed) in enumerate(prepared) for row, f in failed.items()}
    arrays = [_joined([columns[k] for columns, _ in prepared]) for k in range(len(binding.inputs))]
    predicted = _predict_rows(
        arrays, int(starts[-1]), binding, outputs, call, max_rows, explain, failures, pool, outlook, call_size
    )
    one = len(batches) == 1
    results = []
    for i, batch in enumerate(batches):
        low, size = int(starts[i]), sizes[i]
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns.update(predicted if one else {name: array.slice(low, size) for name, array in predicted.items()})
        failed = {row - low: f for row, f in failures.items() if low <= row < low + size} if failures else {}
        results.append(make_batch(columns, failed))
    return results


def reject_all(batch: pa.RecordBatch, outputs: pa.Schema, error: Exception) -> pa.RecordBatch:
    """Returns the result for a batch none of whose rows can be fed to the model."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns.update({field.name: pa.nulls(batch.num_rows, field.type) for field in outputs})
    failure = Failure("coerce", type(error).__name__, str(error)[:500])
    return make_batch(columns, dict.fromkeys(range(batch.num_rows), failure))


def _joined(arrays: list[pa.Array]) -> pa.Array:
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def _predict_rows(
    arrays: list[pa.Array],
    rows: int,
    binding: Binding,
    outputs: pa.Schema,
    call: Call,
    max_rows: int,
    explain: Explain,
    failures: dict[int, Failure],
    pool: Executor | None,
    outlook: Outlook,
    call_size: CallSize | None,
) -> dict[str, pa.Array]:
    """Outputs of all rows, null for those in `failures`, to which rows that fail in the model are added."""
    if not failures and not _needs_grouping(arrays, binding):
        done = call_in_slices(arrays, rows, call, max_rows, explain, pool, outlook, size=call_size)
        failures.update(done.failures)
        return done.columns(outputs)
    good = np.setdiff1d(np.arange(rows, dtype=np.int64), np.fromiter(failures, np.int64, len(failures)))
    order: list[Rows] = []
    pieces: list[dict[str, pa.Array]] = []
    for group in shape_groups(arrays, good, binding):
        taken = [array.take(pa.array(group)) for array in arrays]
        done = call_in_slices(taken, len(group), call, max_rows, explain, pool, outlook, failures, call_size)
        failures.update({int(group[row]): failure for row, failure in done.failures.items()})
        order.append(group)
        pieces.append(done.columns(outputs))
    place = np.full(rows, -1, np.int64)
    if order:
        everywhere = np.concatenate(order)
        place[everywhere] = np.arange(len(everywhere))
    index = pa.array(np.ma.masked_array(place, mask=place < 0), pa.int64())
    joined = {
        field.name: _joined([piece[field.name] for piece in pieces]) if pieces else pa.nulls(0, field.type)
        for field in outputs
    }
    return {name: array.take(index) for name, array in joined.items()}


def _needs_grouping(arrays: list[pa.Array], binding: Binding) -> bool:
    if binding.encode_examples:
        return False
    return any(
        bound.spec.kind == "dense" and is_list(array.type) and _open_sizes(bound.spec.shape)
        for bound, array in zip(binding.inputs, arrays, strict=True)
    )


def _open_sizes(shape: tuple[int | None, ...] | None) -> bool:
    return shape is None or None in shape[1:]


def shape_groups(arrays: list[pa.Array], rows: Rows, binding: Binding) -> list[Rows]:
    """Returns rows that may stand in one dense tensor together: a list whose length is open must have one length."""
    if not _needs_grouping(arrays, binding):
        return [rows] if len(rows) else []
    keys = [
        shape_key(array)[rows]
        for bound, array in zip(binding.inputs, arrays, strict=True)
        if bound.spec.kind == "dense" and is_list(array.type) and not binding.encode_examples
    ]
    if not keys or not len(rows):
        return [rows] if len(rows) else []
    _, member = np.unique(np.concatenate(keys, axis=1), axis=0, return_inverse=True)
    member = member.reshape(-1)
    by_group = np.argsort(member, kind="stable")
    cuts = np.flatnonzero(np.diff(member[by_group])) + 1
    return [np.asarray(rows[part], np.int64) for part in np.split(by_group, cuts)]


def column_nbytes(batches: Sequence[Any]) -> int:
    """Returns the bytes of record batches, or of (key, record batch) pairs."""
    return sum(int((item[1] if isinstance(item, tuple) else item).nbytes) for item in batches)


def padded_to(arrays: list[pa.Array], rows: int | None) -> list[pa.Array]:
    """Repeats the last row to make up the fixed number of rows that a model takes."""
    given = len(arrays[0])
    if rows is None or given == rows:
        return arrays
    index = pa.array([*range(given), *[given - 1] * (rows - given)])
    return [array.take(index) for array in arrays]
