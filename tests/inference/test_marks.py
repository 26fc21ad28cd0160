"""What travels beside the columns of a batch, whatever these are named."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from inference.coders import RecordBatchCoder
from inference.errors import Failure
from inference.marks import failures_of, make_batch, numbered, rows_of, taken

NAMES = ["__error", "__row", "inference.failures", "inference.rows", "", "\x00", "x"]
FAILURES = {
    4: Failure("predict", "ValueError", "half of a pair: \ud800", 3),
    1: Failure("coerce", "CoercionError", "b"),
}


def columns() -> dict[str, pa.Array]:
    return {name: pa.array([f"{name} {row}" for row in range(5)]) for name in NAMES}


@pytest.mark.parametrize(
    "carried",
    [
        lambda batch: batch,
        lambda batch: pickle.loads(pickle.dumps(batch)),
        lambda batch: RecordBatchCoder().decode(RecordBatchCoder().encode(batch)),
    ],
    ids=["as it is", "pickled", "encoded"],
)
def test_marks_travel_with_the_batch(carried: Callable[[pa.RecordBatch], pa.RecordBatch]) -> None:
    batch = carried(make_batch(columns(), FAILURES))
    assert failures_of(batch) == FAILURES
    assert list(failures_of(batch)) == [1, 4]
    assert batch.to_pydict() == {name: array.to_pylist() for name, array in columns().items()}
    rows = np.array([0, 2, 7])
    left = carried(numbered(taken(batch, np.array([0, 2, 3])), rows))
    assert rows_of(left).tolist() == [0, 2, 7]
    assert failures_of(left) == {}
    assert left["__row"].to_pylist() == ["__row 0", "__row 2", "__row 3"]


def test_a_batch_without_marks_is_all_of_its_rows() -> None:
    batch = make_batch(columns())
    assert rows_of(batch).tolist() == [0, 1, 2, 3, 4]
    assert failures_of(batch) == {}
    assert batch.schema.metadata is None


def test_what_all_rows_fail_with_is_there_once() -> None:
    failure = Failure("predict", "ValueError", "m" * 500)
    batch = make_batch({"x": pa.array(range(10_000))}, dict.fromkeys(range(10_000), failure))
    assert sum(map(len, batch.schema.metadata.values())) < 200_000
    assert failures_of(batch) == dict.fromkeys(range(10_000), failure)
