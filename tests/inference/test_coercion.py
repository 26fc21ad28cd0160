"""Coercions that lose nothing are silent, the others name the value."""

import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.columns.coercion import coerce, describe

NUMBERS = [
    pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
    pa.float16(), pa.float32(), pa.float64(), pa.bool_(),
]  # fmt: skip


PAIRS = [(source, target) for source in NUMBERS for target in NUMBERS if describe(source, target)]


def test_only_a_float_never_becomes_a_bool():
    assert {(s, t) for s in NUMBERS for t in NUMBERS} - set(PAIRS) == {
        (s, pa.bool_()) for s in NUMBERS if pa.types.is_floating(s)
    }


@pytest.mark.parametrize(("source", "target"), PAIRS, ids=str)
def test_zero_and_one_fit_every_number_that_is_described(source, target):
    values = (
        pa.array([0, 1, None]).cast(source)
        if source != pa.float16()
        else pa.array([np.float16(0), np.float16(1), None], source)
    )
    converted, failures = coerce(values, target)
    assert failures == {}
    assert converted.type == target
    assert [None if v is None else float(v) for v in converted.to_pylist()] == [0.0, 1.0, None]


@pytest.mark.parametrize(
    ("values", "target", "bad"),
    [
        (pa.array([1, 2**40, 3]), pa.int32(), {1: "1099511627776 is not a int32"}),
        (pa.array([1, 2**24 + 1]), pa.float32(), {1: "16777217 is not a float"}),
        (pa.array([1.0, 2.5, None]), pa.int64(), {1: "2.5 is not a int64"}),
        (pa.array([1.0, 1e300]), pa.float32(), {1: "1e+300 is not a float"}),
        (pa.array([-1, 1]), pa.uint8(), {0: "-1 is not a uint8"}),
        (pa.array(["1", " 2 ", "x", "", None]), pa.int64(), {2: "'x' is not a int64", 3: "'' is not a int64"}),
        (pa.array(["1.5", "1e40", "nan"]), pa.float32(), {1: "'1e40' is not a float"}),
        (pa.array(["true", "False", "maybe"]), pa.bool_(), {2: "'maybe' is not a bool"}),
        (pa.array([0, 1, 2]), pa.bool_(), {2: "2 is not a bool"}),
        (pa.array(["a", "7", "a"]).dictionary_encode(), pa.int64(), {0: "'a' is not a int64", 2: "'a' is not a int64"}),
    ],
)
def test_values_that_would_lose_something_are_refused_one_by_one(values, target, bad):
    converted, failures = coerce(values, target)
    assert failures == bad
    assert len(converted) == len(values)
    good = [row for row in range(len(values)) if row not in bad]
    alone, none = coerce(values.take(pa.array(good)), target)
    assert not none
    assert converted.take(pa.array(good)).equals(alone) or pa.types.is_floating(target)


def test_text_stays_text_and_numbers_become_text_only_where_there_is_one_way():
    assert coerce(pa.array(["True"]), pa.string())[0].to_pylist() == ["True"]
    assert coerce(pa.array([True, None]), pa.string())[0].to_pylist() == ["True", None]
    assert coerce(pa.array([7]), pa.string())[0].to_pylist() == ["7"]
    assert coerce(pa.array([b"\xff"]), pa.string())[0].to_pylist() == [b"\xff"]
    assert describe(pa.float64(), pa.string()) is None
    assert describe(pa.timestamp("us"), pa.string()) is None


def test_float64_rounds_to_the_nearest_float32():
    converted, failures = coerce(pa.array([0.1, float("inf"), float("nan")]), pa.float32())
    assert not failures
    assert converted.to_numpy()[0] == np.float32(0.1)
    assert np.isinf(converted.to_numpy()[1])
    assert np.isnan(converted.to_numpy()[2])


@pytest.mark.parametrize("type", [pa.decimal128(18, 3), pa.decimal128(38, 9), pa.decimal256(76, 38)], ids=str)
@pytest.mark.parametrize("target", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_a_decimal_becomes_the_nearest_float(type, target):
    texts = ["1.5", "3", "0.1", "123.456", "-0.001", "1000000.5"] if target != pa.float16() else ["1.5", "3", "-0.5"]
    converted, failures = coerce(pa.array([*map(decimal.Decimal, texts), None], type), target)
    assert not failures
    assert converted.to_pylist() == [*(float(target.to_pandas_dtype()(text)) for text in texts), None]


def test_a_decimal_that_a_float_does_not_hold_is_refused():
    large = decimal.Decimal("1" + "0" * 60)
    converted, failures = coerce(pa.array([large, decimal.Decimal(1)], pa.decimal256(76, 0)), pa.float32())
    assert set(failures) == {0}
    assert converted.to_pylist() == [None, 1.0]


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), max_size=50), st.sampled_from([pa.int8(), pa.int32()]))
def test_exactly_the_values_out_of_range_are_refused(values, target):
    limit = 2 ** (target.bit_width - 1)
    converted, failures = coerce(pa.array(values, pa.int64()), target)
    assert set(failures) == {i for i, v in enumerate(values) if v is not None and not -limit <= v < limit}
    assert converted.to_pylist() == [None if i in failures else v for i, v in enumerate(values)]
