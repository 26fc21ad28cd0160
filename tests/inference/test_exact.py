"""Values of one type as another: the very same values, or none."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.columns.coercion import coerce
from inference.columns.exact import coerce_exactly

INF = float("inf")
NOON = datetime.datetime(2024, 1, 2, 12)


@pytest.mark.parametrize(
    ("given", "source", "target", "expected"),
    [
        (["7", "007", " 7", "7.0", ""], pa.string(), pa.int64(), [7, None, None, None, None]),
        (["true", "True", "1"], pa.string(), pa.bool_(), [True, None, None]),
        (["1.5", "1.50", "1e3"], pa.string(), pa.float64(), [1.5, None, None]),
        ([True, False], pa.bool_(), pa.int64(), [None, None]),
        ([1, 0], pa.int64(), pa.bool_(), [None, None]),
        ([True], pa.bool_(), pa.string(), ["true"]),
        ([16777216.0, 16777217.0, 0.1, INF], pa.float64(), pa.float32(), [16777216.0, None, None, INF]),
        ([2**53, 2**53 + 1], pa.int64(), pa.float64(), [2.0**53, None]),
        ([25.0, 25.5, 1e300], pa.float64(), pa.int64(), [25, None, None]),
        ([2**63 - 1, 2**63 + 5], pa.uint64(), pa.int64(), [2**63 - 1, None]),
        ([2**40, 5], pa.int64(), pa.int32(), [None, 5]),
        ([Decimal("7.00"), Decimal("7.50")], pa.decimal128(9, 2), pa.int64(), [7, None]),
        ([Decimal("1" + "0" * 60)], pa.decimal256(76, 0), pa.float32(), [None]),
        ([Decimal("1.5"), Decimal("0.1")], pa.decimal128(18, 3), pa.float64(), [1.5, 0.1]),
        ([Decimal("1.5"), Decimal("3")], pa.decimal128(18, 3), pa.float32(), [1.5, 3.0]),
        ([1.5, 0.1], pa.float64(), pa.decimal128(9, 2), [Decimal("1.50"), Decimal("0.10")]),
        ([7, 10**9], pa.int64(), pa.decimal128(9, 2), [Decimal("7.00"), None]),
        (["1.50", "1.5"], pa.string(), pa.decimal128(9, 2), [Decimal("1.50"), None]),
        ([NOON], pa.timestamp("us", "America/New_York"), pa.timestamp("us"), [None]),
        ([NOON], pa.timestamp("us"), pa.timestamp("us", "UTC"), [None]),
        ([5], pa.int64(), pa.timestamp("us"), [None]),
        ([NOON.date()], pa.date32(), pa.timestamp("us"), [datetime.datetime(2024, 1, 2)]),
        ([datetime.datetime(2024, 1, 2), NOON], pa.timestamp("us"), pa.date32(), [NOON.date(), None]),
        ([b"a", b"\xff"], pa.binary(), pa.string(), ["a", None]),
        ([None, None], pa.null(), pa.int64(), [None, None]),
        ([["7"], ["007"], None, []], pa.list_(pa.string()), pa.list_(pa.int64()), [[7], None, None, []]),
        ([{"a": 1.0}, {"a": 1.5}], pa.struct([("a", pa.float64())]), pa.struct([("a", pa.int8())]), [{"a": 1}, None]),
    ],
    ids=str,
)  # fmt: skip
def test_only_what_comes_back_the_same_is_converted(
    given: list[Any], source: pa.DataType, target: pa.DataType, expected: list[Any]
) -> None:
    converted, failures = coerce_exactly(pa.array(given, source), target)
    assert converted.type == target
    assert converted.to_pylist() == expected
    assert set(failures) == {row for row, value in enumerate(expected) if value is None and given[row] is not None}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-300, 300)), max_size=8),
    st.sampled_from([pa.int8(), pa.uint16(), pa.int32(), pa.uint64(), pa.float32(), pa.float64(), pa.string()]),
)
def test_integers_stay_themselves(values: list[int], target: pa.DataType) -> None:
    converted, failures = coerce_exactly(pa.array(values, pa.int64()), target)
    for row, (before, after) in enumerate(zip(values, converted.to_pylist(), strict=True)):
        assert after is None if row in failures else int(after) == before


@pytest.mark.parametrize(
    ("values", "target"),
    [
        (pa.array([Decimal("1" + "0" * 60), Decimal(1)], pa.decimal256(76, 0)), pa.float32()),
        (pa.array([1e300, 1.0]), pa.float32()),
        (pa.array([1e300, 1.0]), pa.float16()),
        (pa.array([100_000, 1]), pa.float16()),
        (pa.array(["1e400", "1"]), pa.float64()),
        (pa.array(["1e40", "1"]), pa.float32()),
        (pa.array(["70000", "1"]), pa.float16()),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else str(value),
)
def test_a_number_for_a_model_does_not_become_infinite(values: pa.Array, target: pa.DataType) -> None:
    converted, failures = coerce(values, target)
    assert converted.cast(pa.float64()).to_pylist() == [None, 1.0]
    assert list(failures) == [0]


def test_text_that_says_infinity_is_infinity() -> None:
    converted, failures = coerce(pa.array(["inf", "-Infinity", "+INF"]), pa.float64())
    assert converted.to_pylist() == [float("inf"), float("-inf"), float("inf")]
    assert not failures
