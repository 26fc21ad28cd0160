"""Calls are bounded by rows, by bytes, and by what the model had no memory for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from inference.call_size import CallSize, is_exhausted
from inference.calls import Outlook, call_in_slices
from inference.errors import Failure
from inference.marks import failures_of
from inference.saved_model.handler import SavedModelHandler
from model.specs import Signature, TensorSpec
from tests.support.commands import save

FLOATS = TensorSpec("y", "float32", (None,))


def signature(*outputs: TensorSpec) -> Signature:
    return Signature("serving_default", (), outputs or (FLOATS,), "predict")


def explained(error: Exception) -> Failure:
    return Failure("predict", type(error).__name__, str(error))


def test_a_table_of_numbers_has_all_of_its_rows_in_a_call() -> None:
    arrays = [pa.array(np.zeros(40_000, np.float32)), pa.array(["word"] * 40_000)]
    assert CallSize(signature()).pieces(arrays, 40_000, 16_384) == [(0, 16_384), (16_384, 32_768), (32_768, 40_000)]


def test_large_rows_are_cut_where_their_bytes_add_up() -> None:
    """One row that is too large stands alone; texts below 1 KiB are taken as they are."""
    texts = pa.array([b"x" * size for size in (400, 400, 400, 900, 100, 100)])
    assert CallSize(signature(), 1_000).pieces([texts], 6, 16) == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert CallSize(signature(), 10).pieces([texts], 6, 16) == [(row, row + 1) for row in range(6)]
    words = texts.dictionary_encode()
    assert CallSize(signature(), 1_000).pieces([words], 6, 16) == [(0, 2), (2, 3), (3, 4), (4, 6)]


def test_what_a_model_decodes_is_larger_than_its_bytes() -> None:
    images = pa.array([b"j" * 20_000] * 64)
    pieces = CallSize(signature(), 4_001_000).pieces([images], 64, 64)
    assert {high - low for low, high in pieces} == {10, 4}
    assert [low for low, _ in pieces[1:]] == [high for _, high in pieces[:-1]]


def test_outputs_and_lists_count() -> None:
    image = TensorSpec("image", "float32", (None, 100, 100, 3))
    assert CallSize(signature(image), 1_200_000).pieces([pa.array([0.0] * 25)], 25, 25)[0] == (0, 9)
    lists = pa.array([[0.0] * 1_000] * 8)
    assert all(high - low <= 2 for low, high in CallSize(signature(), 20_000).pieces([lists], 8, 8))


def test_a_call_without_memory_is_halved_and_further_ones_are_smaller(caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
        tried.append(len(arrays[0]))
        if len(arrays[0]) > 5:
            raise MemoryError("too much")
        return {"y": arrays[0]}

    size = CallSize(signature())
    numbers = pa.array(np.arange(64, dtype=np.float32))
    with caplog.at_level(logging.WARNING):
        done = call_in_slices([numbers], 64, call, 16, explained, None, Outlook(), size=size)
    assert done.columns(pa.schema([("y", pa.float32())]))["y"].equals(numbers)
    assert not done.failures
    # 16 and 8 fail once each; all else has at most 4.
    assert [rows for rows in tried if rows > 5] == [16, 8]
    assert "it gets at most 4 from now on (set batching.max_rows)" in caplog.text
    tried.clear()
    call_in_slices([numbers], 64, call, 16, explained, None, Outlook(), size=size)
    assert set(tried) == {4}


def test_a_row_that_needs_too_much_alone_is_a_failed_row() -> None:
    def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
        if 7.0 in arrays[0].to_pylist():
            raise MemoryError("too much")
        return {"y": arrays[0]}

    numbers = pa.array(np.arange(16, dtype=np.float32))
    done = call_in_slices([numbers], 16, call, 16, explained, None, Outlook(), size=CallSize(signature()))
    assert list(done.failures) == [7]


@pytest.fixture(scope="module")
def hungry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that asks for 2^58 bytes as soon as a call has more than eight rows."""
    import tensorflow as tf

    class Hungry(tf.Module):  # type: ignore[misc, name-defined]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
        def __call__(self, x: Any) -> dict[str, Any]:
            many = tf.cast(tf.size(x) > 8, tf.int64)
            huge = tf.zeros([1 + many * 2**56])
            return {"y": x * 2 + huge[0]}

    return save(Hungry(), tmp_path_factory.mktemp("hungry"))


@pytest.mark.parametrize("runtime", ["native", "python"])
def test_a_model_without_memory(hungry: str, runtime: Any) -> None:
    handler = SavedModelHandler(hungry, runtime=runtime)
    model = handler.load_model()
    batch = pa.RecordBatch.from_pydict({"x": pa.array(np.arange(100, dtype=np.float32))})
    [predicted] = handler.run_inference([batch], model)
    assert not failures_of(predicted)
    assert predicted["y"].to_pylist() == [2.0 * number for number in range(100)]


@pytest.mark.parametrize("runtime", ["native", "python"])
def test_calls_are_bounded_by_bytes(tmp_path: Path, runtime: Any) -> None:
    """A model tells how many rows its calls have."""
    import tensorflow as tf

    class Counting(tf.Module):  # type: ignore[misc, name-defined]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image")])
        def __call__(self, image: Any) -> dict[str, Any]:
            return {"rows": tf.fill(tf.shape(image), tf.size(image))}

    handler = SavedModelHandler(save(Counting(), tmp_path), runtime=runtime, max_bytes=1 << 20)
    batch = pa.RecordBatch.from_pydict({"image": [b"j" * (2_000 + 1_000 * (row % 7)) for row in range(300)]})
    [predicted] = handler.run_inference([batch], handler.load_model())
    assert 1 < max(predicted["rows"].to_pylist()) <= 26


def test_what_no_memory_is() -> None:
    assert is_exhausted(MemoryError())
    assert not is_exhausted(ValueError("ResourceExhaustedError"))
