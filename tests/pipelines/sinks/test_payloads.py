"""Rows as messages of JSON."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pytest

from pipelines.connectors.writing.payloads import payloads


def test_each_row_is_one_object_of_json() -> None:
    batch = pa.record_batch(
        {
            "key": ["a", 'line\nend "quoted"', "Zürich"],
            "score": pa.array([1.5, math.nan, None], pa.float32()),
            "scores": [[1.0, 2.0], [], None],
            "count": [1, 2, 2**53 + 1],
        }
    )
    found = payloads(batch)
    assert [json.loads(payload) for payload in found] == [
        {"key": "a", "score": 1.5, "scores": [1.0, 2.0], "count": 1},
        {"key": 'line\nend "quoted"', "score": None, "scores": [], "count": 2},
        {"key": "Zürich", "score": None, "scores": None, "count": 2**53 + 1},
    ]
    assert not any(b"\n" in payload for payload in found)


@pytest.mark.parametrize("rows", [0, 1, 10_000])
def test_there_are_as_many_payloads_as_rows(rows: int) -> None:
    found = payloads(pa.record_batch({"n": pa.array(range(rows), pa.int64())}))
    assert [json.loads(payload)["n"] for payload in found] == list(range(rows))


def test_a_slice_of_a_batch_is_only_its_rows() -> None:
    batch = pa.record_batch({"n": pa.array(range(10), pa.int64())})
    assert [json.loads(payload)["n"] for payload in payloads(batch.slice(3, 2))] == [3, 4]
