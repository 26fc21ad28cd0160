"""How many calls of a model it takes to find the rows on which it fails, and when there are no more."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.calls import MANY_PARTS, PROBES, Done, Outlook, call_in_slices
from inference.errors import EndpointConfigError, Failure, TooManyFailuresError

OUTPUTS = pa.schema([("y", pa.int64())])


class Model:
    """Doubles numbers; fails on calls with bad ones."""

    def __init__(self, is_bad: Callable[[int], bool]) -> None:
        self.is_bad = is_bad
        self.sizes: list[int] = []

    def __call__(self, arrays: list[pa.Array]) -> Mapping[str, pa.Array]:
        self.sizes.append(len(arrays[0]))
        bad = [value for value in arrays[0].to_pylist() if self.is_bad(value)]
        if bad:
            raise ValueError(f"{bad[0]} is bad")
        return {"y": pc.multiply(arrays[0], 2)}


class Limit:
    """As many rows may fail as `most`."""

    def __init__(self, most: int) -> None:
        self.most = most

    def is_over(self, more: int) -> bool:
        return more > self.most

    def explain(self, failures: Mapping[int, Failure]) -> str:
        return f"{len(failures)} failed, the last: {[*failures.values()][-1].message}"


def explain(error: Exception) -> Failure:
    return Failure("predict", type(error).__name__, str(error))


def called(model: Model, rows: int, outlook: Outlook | None = None, max_rows: int = 1 << 14, threads: int = 0) -> Done:
    arrays = [pa.array(range(rows), pa.int64())]
    given = (arrays, rows, model, max_rows, explain)
    if not threads:
        return call_in_slices(*given, None, outlook or Outlook())
    with ThreadPoolExecutor(threads) as pool:
        return call_in_slices(*given, pool, outlook or Outlook())


def assert_right(done: Done, model: Model, rows: int) -> None:
    """Each bad row has failed alone, each other row has its output."""
    bad = {row for row in range(rows) if model.is_bad(row)}
    assert done.failures == {row: Failure("predict", "ValueError", f"{row} is bad") for row in bad}
    assert done.columns(OUTPUTS)["y"].to_pylist() == [None if row in bad else 2 * row for row in range(rows)]


def most_calls(rows: int, bad: int, max_rows: int = 1 << 14) -> int:
    """The stated number: 5 log2(n) a bad row, and one a slice."""
    return math.ceil(rows / max_rows) + 5 * bad * math.ceil(math.log2(rows))


@pytest.mark.parametrize("threads", [0, 8])
@pytest.mark.parametrize("bad", [1, 2, 7, 30, 100, 300])
@pytest.mark.parametrize("together", [False, True])
def test_few_bad_rows_among_many(bad: int, together: bool, threads: int) -> None:
    rows = 20_000
    places = set(range(5_000, 5_000 + bad)) if together else set(random.Random(bad).sample(range(rows), bad))
    model = Model(places.__contains__)
    assert_right(called(model, rows, threads=threads), model, rows)
    assert len(model.sizes) <= most_calls(rows, bad)


@given(st.integers(1, 600), st.sets(st.integers(0, 599)), st.integers(1, 700))
def test_any_rows_may_be_bad(rows: int, places: set[int], max_rows: int) -> None:
    model = Model(places.__contains__)
    assert_right(called(model, rows, max_rows=max_rows), model, rows)
    bad = sum(place < rows for place in places)
    assert len(model.sizes) <= max(most_calls(rows, bad, max_rows), math.ceil(rows / max_rows))
    assert len(model.sizes) <= math.ceil(rows / max_rows) + 2 * rows


@pytest.mark.parametrize("threads", [0, 8])
def test_all_rows_bad_cost_little_more_than_a_call_each(threads: int) -> None:
    model = Model(lambda value: True)
    done = called(model, 20_000, threads=threads)
    assert len(done.failures) == 20_000
    assert len(model.sizes) <= 1.25 * 20_000
    assert model.sizes.count(1) == 20_000


@pytest.mark.parametrize("threads", [0, 8])
def test_a_model_that_never_succeeds_is_given_up_after_a_few_rows_from_all_over(threads: int) -> None:
    model = Model(lambda value: True)
    said = r"32 of 20,000 rows, from all over them, .* each failed with ValueError, the last: \d+ is bad"
    with pytest.raises(TooManyFailuresError, match=said):
        called(model, 20_000, Outlook(Limit(2_000)), threads=threads)
    # Both slices, in which it shows, the probes, and what was under way meanwhile.
    assert len(model.sizes) <= 2 + PROBES + threads
    assert model.sizes.count(1) >= PROBES


def test_the_handler_says_whose_fault_it_is() -> None:
    with pytest.raises(EndpointConfigError, match="the model fails on every row"):
        called(Model(lambda value: True), 100, Outlook(Limit(10), EndpointConfigError))


@pytest.mark.parametrize("first", [100, 5_000, 19_000])
def test_a_model_that_fails_on_all_of_the_first_rows_is_not_given_up(first: int) -> None:
    model = Model(lambda value: value < first)
    outlook = Outlook(Limit(19_000))
    assert_right(called(model, 20_000, outlook), model, 20_000)
    assert outlook.succeeded
    assert len(model.sizes) <= most_calls(20_000, first) + PROBES


def test_rows_that_fail_in_different_ways_are_not_given_up_unheard() -> None:
    class Various(Model):
        def __call__(self, arrays: list[pa.Array]) -> Mapping[str, pa.Array]:
            self.sizes.append(len(arrays[0]))
            raise (ValueError if arrays[0][0].as_py() % 2 else KeyError)("bad")

    model = Various(lambda value: True)
    with pytest.raises(TooManyFailuresError, match="51 failed"):
        called(model, 1_000, Outlook(Limit(50)))
    assert len(model.sizes) <= PROBES + 200


@pytest.mark.parametrize("threads", [0, 8])
def test_what_may_fail_is_looked_at_while_rows_are_told_apart(threads: int) -> None:
    model = Model(lambda value: value % 2 == 0)
    with pytest.raises(TooManyFailuresError, match=r"501 failed, the last: \d+ is bad"):
        called(model, 20_000, Outlook(Limit(500)), threads=threads)
    assert len(model.sizes) <= 2 * 501 * MANY_PARTS


def test_rows_that_failed_before_count() -> None:
    model = Model(lambda value: value < 3)
    before = {row: Failure("coerce", "CoercionError", "no") for row in range(8)}
    arrays = [pa.array(range(100), pa.int64())]
    outlook = Outlook(Limit(10))
    with pytest.raises(TooManyFailuresError, match="11 failed, the last: 2 is bad"):
        call_in_slices(arrays, 100, model, 100, explain, None, outlook, before)
    assert len(call_in_slices(arrays, 100, model, 100, explain, None, Outlook(Limit(11)), before).failures) == 3
