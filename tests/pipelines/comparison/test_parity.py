"""What two ways have written, held against each other: nothing that differs is missed, nothing else is called so."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.comparison.parity import Written, compare, in_words, tolerance_of
from pipelines.comparison.results import Parity
from pipelines.config.comparison import Tolerance

FLOAT = pa.field("p", pa.float32())


def written(keys: list[Any], values: Any, failed: tuple[str, ...] = (), type: Any = None) -> Written:
    return Written(pa.table({"key": keys, "p": pa.array(values, type)}), failed)


def compared(here: Written, reference: Written, output: pa.Field = FLOAT, **tolerance: Tolerance) -> Parity:
    return compare("b", "a", here, reference, [output], tolerance)


def test_the_same_rows_in_another_order_agree() -> None:
    keys = [f"k{number}" for number in range(1_000)]
    values = np.random.default_rng(1).normal(size=1_000).astype(np.float32)
    order = np.random.default_rng(2).permutation(1_000)
    found = compared(written([keys[at] for at in order], values[order]), written(keys, values))
    assert found.agrees
    assert (found.rows, found.differences[0].greatest, found.examples) == (1_000, 0.0, ())


def test_values_within_the_tolerance_agree_and_the_difference_is_told() -> None:
    found = compared(written([1, 2], [1.00001, 2.0]), written([1, 2], [1.0, 2.0]))
    assert found.agrees
    assert found.differences[0].greatest == pytest.approx(1e-5)
    assert "greatest difference 1e-05" in in_words(found)


def test_a_row_that_differs_is_named_with_both_values() -> None:
    found = compared(written([1, 2, 3], [1.0, 2.5, 3.0]), written([1, 2, 3], [1.0, 2.0, 3.0]))
    assert not found.agrees
    assert found.differences[0].over == 1
    assert [(each.key, each.reference, each.here) for each in found.examples] == [("2", "2.0", "2.5")]
    assert "1 rows whose p differs" in in_words(found)


def test_missing_extra_and_repeated_rows_are_told_apart() -> None:
    found = compared(written(["a", "a", "c", "x"], [1.0, 1.0, 3.0, 9.0]), written(["a", "b", "c"], [1.0, 2.0, 3.0]))
    assert (found.missing, found.extra, found.repeated) == (1, 1, 1)
    assert {(each.key, each.what) for each in found.examples} == {("b", "missing"), ("x", "extra"), ("a", "repeated")}
    assert not found.agrees


def test_rows_that_fail_in_one_way_only() -> None:
    found = compared(written(["a"], [1.0], ("b", "c")), written(["a", "b"], [1.0, 2.0], ("c",)))
    assert (found.failed_here_only, found.failed_in_both, found.missing) == (1, 1, 0)
    other = compared(written(["a", "b"], [1.0, 2.0]), written(["a"], [1.0], ("b",)))
    assert (other.failed_in_reference_only, other.missing, other.extra) == (1, 0, 0)
    assert not found.agrees
    assert not other.agrees


def test_rows_of_one_key_are_paired_by_their_values() -> None:
    found = compared(written(["a", "a", "b"], [2.0, 1.0, 3.0]), written(["a", "a", "b"], [1.0, 2.0, 3.0]))
    assert found.agrees


def test_not_a_number_is_equal_to_itself_only() -> None:
    nan = float("nan")
    assert compared(written([1, 2], [nan, 1.0]), written([1, 2], [nan, 1.0])).agrees
    assert not compared(written([1], [nan]), written([1], [1.0])).agrees
    assert not compared(written([1], [1.0]), written([1], [nan])).agrees
    infinite = float("inf")
    assert compared(written([1], [infinite]), written([1], [infinite])).agrees
    assert not compared(written([1], [-infinite]), written([1], [infinite])).agrees


def test_nothing_is_not_the_same_as_not_a_number() -> None:
    nothing = written([1], [None], type=pa.float32())
    assert not compared(nothing, written([1], [float("nan")])).agrees
    assert compared(nothing, nothing).agrees


@pytest.mark.parametrize(
    ("here", "there", "agrees"),
    [
        ([["x", "y"]], [["x", "y"]], True),
        ([["x", "y"]], [["x", "z"]], False),
        ([[1.0, 2.0]], [[1.0, 2.00001]], True),
        ([[1.0, 2.0]], [[1.0, 3.0]], False),
        ([[1.0, 2.0]], [[1.0]], False),
        ([[]], [None], False),
        ([[[1.0], [2.0]]], [[[1.0], [2.0]]], True),
        ([[[1.0], [2.0]]], [[[1.0, 2.0]]], False),
        ([[[1.0, 2.0], []]], [[[1.0], [2.0]]], False),
        ([True], [True], True),
        ([True], [False], False),
        ([7], [8], False),
        ([2**60], [2**60 + 1], False),
        ([2**60], [2**60], True),
        (["yes"], ["no"], False),
    ],
)
def test_values_of_each_kind(here: list[Any], there: list[Any], agrees: bool) -> None:
    type = pa.array([*here, *there]).type
    leaf = type
    while hasattr(leaf, "value_type"):
        leaf = leaf.value_type
    output = pa.field("p", pa.float32() if pa.types.is_floating(leaf) else leaf)
    found = compared(written([1], here, type=type), written([1], there, type=type), output)
    assert found.agrees is agrees
    assert found.differences[0].over == (not agrees)


def test_tolerance_by_output_goes_before_that_of_its_type() -> None:
    assert tolerance_of(FLOAT, {"float32": Tolerance(absolute=1), "p": Tolerance(absolute=2)}).absolute == 2
    assert tolerance_of(FLOAT, {"float32": Tolerance(absolute=1)}).absolute == 1
    assert tolerance_of(pa.field("p", pa.int64()), {}) == Tolerance()
    here, there = written([1], [1.0]), written([1], [2.0])
    assert compared(here, there, p=Tolerance(absolute=1)).agrees
    assert not compared(here, there, p=Tolerance(relative=0.4)).agrees


def test_nothing_was_written() -> None:
    empty = Written(pa.table({"key": pa.array([], pa.string()), "p": pa.array([], pa.float32())}))
    assert compared(empty, empty).agrees
    assert compared(empty, written(["a"], [1.0])).missing == 1
