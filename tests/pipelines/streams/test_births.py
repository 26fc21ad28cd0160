"""Generated births: the same message for a number and a seed, in whatever batches it is made."""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.signature import read_signatures
from pipelines.connectors.simulated.natality import birth_messages, births_at, source_ids
from tests.support.commands import ROOT

EVENT = 1_767_323_045_123_456


def births(first: int, count: int, seed: int = 7) -> list[bytes]:
    made: list[bytes] = birth_messages(first, count, seed, EVENT + np.arange(first, first + count)).to_pylist()
    return made


def test_a_message() -> None:
    [message] = birth_messages(123, 1, 0, np.array([EVENT])).to_pylist()
    birth = json.loads(message)
    assert list(birth) == [
        "source_id", "timestamp", "is_male", "mother_race", "mother_age", "plurality", "gestation_weeks",
        "mother_married", "cigarette_use", "alcohol_use",
    ]  # fmt: skip
    assert birth["source_id"] == "b000000123"
    assert birth["timestamp"] == "2026-01-02T03:04:05.123456Z"
    assert [type(birth[name]) for name in ("mother_age", "plurality", "gestation_weeks")] == [float, int, float]


@given(
    st.integers(0, 2**40), st.integers(-(2**63), 2**63), st.lists(st.integers(0, 40), min_size=1, max_size=8)
)  # fmt: skip
def test_cuts_do_not_matter(first: int, seed: int, cuts: list[int]) -> None:
    count = sum(cuts)
    parts: list[bytes] = []
    for cut in cuts:
        parts += births(first + len(parts), cut, seed)
    assert parts == births(first, count, seed)


def test_numbers_in_any_order() -> None:
    numbers = np.array([5, 3, 10**9, 3])
    made = births_at(numbers, 7, EVENT + numbers).to_pylist()
    assert made == [births(number, 1)[0] for number in numbers.tolist()]


def test_a_seed_makes_other_births() -> None:
    def without_seed(message: bytes) -> bytes:
        return message.split(b", ", 2)[2]

    same = sum(
        without_seed(one) == without_seed(other)
        for one, other in zip(births(0, 2000, 1), births(0, 2000, 2), strict=True)
    )
    assert same < 40


@pytest.mark.parametrize("number", [0, 999_999_999, 1_000_000_000, 123_456_789_012])
def test_ids_grow_beyond_nine_digits(number: int) -> None:
    assert source_ids(np.array([number, number + 1])).to_pylist() == [f"b{number:09d}", f"b{number + 1:09d}"]


@pytest.mark.parametrize("us", [0, 1, 999_999, 86_400_000_000 - 1, EVENT, 4_102_444_800_000_000])
def test_times(us: int) -> None:
    [message] = birth_messages(0, 1, 0, np.array([us])).to_pylist()
    found = datetime.fromisoformat(json.loads(message)["timestamp"].replace("Z", "+00:00"))
    assert (found - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds() == pytest.approx(us / 1e6, abs=5e-7)


def test_the_values_are_what_births_are_like() -> None:
    made = [json.loads(message) for message in births(0, 20_000)]
    count = len(made)
    assert len({birth["source_id"] for birth in made}) == count

    def share(name: str, value: object) -> float:
        return Counter(birth[name] for birth in made)[value] / count

    assert share("is_male", "True") == pytest.approx(0.512, abs=0.015)
    assert share("mother_race", "Hispanic") == pytest.approx(0.21, abs=0.015)
    assert share("plurality", 2) == pytest.approx(0.031, abs=0.006)
    assert share("cigarette_use", "Unknown") == pytest.approx(0.02, abs=0.005)
    assert share("alcohol_use", "True") == pytest.approx(0.01, abs=0.004)
    assert share("mother_married", "False") == pytest.approx(0.37, abs=0.015)
    ages = np.array([birth["mother_age"] for birth in made])
    assert (ages.mean(), ages.std()) == (pytest.approx(27.5, abs=0.2), pytest.approx(6.0, abs=0.2))
    assert 13 <= ages.min() <= 15
    assert 48 <= ages.max() <= 50
    weeks = np.array([birth["gestation_weeks"] for birth in made])
    alone = np.array([birth["plurality"] == 1 for birth in made])
    assert weeks[alone].mean() == pytest.approx(38.9, abs=0.1)
    assert weeks[~alone].mean() == pytest.approx(35.8, abs=0.4)
    # Fields do not depend on each other, where they should not.
    male = np.array([birth["is_male"] == "True" for birth in made])
    assert abs(np.corrcoef(male, ages)[0, 1]) < 0.03


def test_the_model_takes_them() -> None:
    inputs = read_signatures(ROOT / "model/trained/v1")["serving_default"].inputs
    assert {tensor.name for tensor in inputs} <= set(json.loads(births(0, 1)[0]))


def test_no_python_for_each_message() -> None:
    """A source that is not the bottleneck makes messages in columns: as many calls for ten as for ten thousand."""

    def calls(count: int) -> int:
        seen: Counter[str] = Counter()
        sys.setprofile(lambda frame, event, argument: seen.update([event]))
        try:
            birth_messages(0, count, 1, EVENT + np.arange(count))
        finally:
            sys.setprofile(None)
        return seen["call"] + seen["c_call"]

    births(0, 10)
    assert calls(10_000) == calls(10) > 0
