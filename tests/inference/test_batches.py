"""Rows cut into calls, at the same time or not: order, isolation of failing rows, whole failures."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from inference.batches import predict_batches
from inference.columns.binding import bind
from inference.errors import (
    EndpointConfigError,
    Failure,
    RequestTooLargeError,
    TransientError,
)
from inference.marks import failures_of
from model.specs import Signature, TensorSpec

SIGNATURE = Signature(
    "serving_default", (TensorSpec("x", "int64", (None,)),), (TensorSpec("y", "int64", (None,)),), "predict"
)
OUTPUTS = pa.schema([("y", pa.int64())])
BATCH = pa.RecordBatch.from_pydict({"x": pa.array(range(1000))})


def explain(error: Exception) -> Failure:
    return Failure("predict", type(error).__name__, str(error), getattr(error, "attempts", 1))


def predict(call: Callable[[list[pa.Array]], dict[str, pa.Array]], threads: int, max_rows: int = 64) -> pa.RecordBatch:
    binding = bind(SIGNATURE, BATCH.schema)
    if not threads:
        return predict_batches([BATCH], binding, OUTPUTS, call, max_rows, explain)[0]
    with ThreadPoolExecutor(threads) as pool:
        return predict_batches([BATCH], binding, OUTPUTS, call, max_rows, explain, pool)[0]


def doubled(arrays: list[pa.Array]) -> dict[str, pa.Array]:
    return {"y": pc.multiply(arrays[0], 2)}


@pytest.mark.parametrize("threads", [0, 1, 8])
def test_rows_keep_their_order_however_late_calls_end(threads: int) -> None:
    chance = random.Random(1)

    def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
        time.sleep(chance.uniform(0, 0.01))
        return doubled(arrays)

    assert predict(call, threads)["y"].to_pylist() == list(range(0, 2000, 2))


@pytest.mark.parametrize("threads", [0, 8])
def test_failing_rows_are_isolated(threads: int) -> None:
    poison = {3, 64, 65, 500, 999}

    def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
        if poison & set(arrays[0].to_pylist()):
            raise ValueError("poison")
        return doubled(arrays)

    result = predict(call, threads)
    assert set(failures_of(result)) == poison
    assert result["y"].to_pylist() == [None if x in poison else 2 * x for x in range(1000)]


@pytest.mark.parametrize("threads", [0, 8])
def test_a_failure_of_the_server_is_one_of_all_rows_of_the_call(threads: int) -> None:
    calls = []

    def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
        calls.append(len(arrays[0]))
        if arrays[0][0].as_py() == 64:
            error = TransientError("down")
            error.attempts = 7
            raise error
        return doubled(arrays)

    failures = failures_of(predict(call, threads))
    assert list(failures) == list(range(64, 128))
    assert set(failures.values()) == {Failure("predict", "TransientError", "down", 7)}
    assert len(calls) == 16


@pytest.mark.parametrize("threads", [0, 8])
def test_a_request_that_is_too_large_is_cut_into_as_many_as_it_takes(threads: int) -> None:
    sizes = []

    def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
        sizes.append(len(arrays[0]))
        if len(arrays[0]) > 10:
            error = RequestTooLargeError("too large")
            error.parts = -(-len(arrays[0]) // 10)
            raise error
        return doubled(arrays)

    assert predict(call, threads, max_rows=1000)["y"].to_pylist() == list(range(0, 2000, 2))
    assert sorted(sizes) == [10] * 100 + [1000]


@pytest.mark.parametrize("threads", [0, 2])
def test_a_server_that_refuses_the_caller_ends_it(threads: int) -> None:
    calls = []

    def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
        calls.append(1)
        time.sleep(0.01)
        raise EndpointConfigError("401")

    with pytest.raises(EndpointConfigError):
        predict(call, threads, max_rows=1)
    assert len(calls) < 20


def test_as_many_calls_as_there_are_threads() -> None:
    met = threading.Barrier(8, timeout=120)

    def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
        met.wait()
        return doubled(arrays)

    predict(call, 8, max_rows=125)
