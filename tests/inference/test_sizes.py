"""Batches are cut by what they are once their dictionaries are written out."""

from __future__ import annotations

import pyarrow as pa

from inference.handler_base import GATHERED_BYTES, _RowCount
from inference.sizes import batch_bytes, bounded


def repeated(rows: int, nbytes: int) -> pa.RecordBatch:
    words = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * nbytes]))
    return pa.record_batch({"n": pa.array(range(rows), pa.int64()), "s": words})


def test_slices_hold_all_rows_in_order_and_are_bounded() -> None:
    batch = repeated(1000, 10_000)
    assert batch_bytes(batch) == 1000 * 10_008
    parts = list(bounded(batch, 100_000))
    assert max(map(batch_bytes, parts)) <= 100_000
    assert [n for part in parts for n in part.column("n").to_pylist()] == list(range(1000))


def test_a_row_is_never_cut_and_a_small_batch_stays_as_it_is() -> None:
    assert [part.num_rows for part in bounded(repeated(3, 1000), 10)] == [1, 1, 1]
    batch = repeated(1000, 10)
    assert [part is batch for part in bounded(batch, 1 << 20)] == [True]
    nothing = repeated(0, 10)
    assert [part.num_rows for part in bounded(nothing, 10)] == [0]


def test_wide_rows_count_for_more_when_small_batches_are_gathered() -> None:
    count = _RowCount(1000)
    assert count(repeated(5, 10)) == 5
    assert count(repeated(5, GATHERED_BYTES // 10)) == 500
    assert count(("key", repeated(5, GATHERED_BYTES))) == 1000
