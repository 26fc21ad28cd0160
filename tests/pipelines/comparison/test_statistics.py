"""Sums of runs: intervals that cover, outliers that stay, ties that are called ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.comparison.results import Figure, Run
from pipelines.comparison.statistics import (
    Contestant,
    cell,
    figure,
    is_narrow,
    outliers,
    overlap,
    ranking,
    spread,
    with_outliers,
)

positive = st.floats(1e-3, 1e6)


def a_run(seconds: float, round: int = 1, **changes: object) -> Run:
    values = {"way": "w", "load": 10, "round": round, "begun": "2026-11-27T00:00:00+00:00", "elapsed_s": seconds}
    return Run(**{**values, **changes})


@pytest.mark.parametrize("rounds", [2, 3, 5, 6, 9, 20])
def test_intervals_cover_the_median_as_often_as_they_say(rounds: int) -> None:
    draws = np.random.default_rng(rounds).lognormal(1.0, 0.1, (4_000, rounds))
    found = [figure(row.tolist()) for row in draws]
    covered = np.mean([each.low <= np.e <= each.high for each in found])
    assert 0.93 <= covered <= 0.995


@given(st.lists(positive, min_size=2, max_size=12))
def test_a_figure_lies_in_its_interval(values: list[float]) -> None:
    found = figure(values)
    assert found.low <= found.median <= found.high
    assert found.rounds == len(values)
    assert min(values) <= found.median <= max(values)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_few_rounds_share_what_is_known_of_their_spread(rounds: int) -> None:
    draws = np.random.default_rng(rounds).lognormal(1.0, 0.1, (400, 10, rounds + 1))
    covered = []
    for comparison in draws:
        groups = [row.tolist() for row in comparison]
        # The last group has a round less than the others.
        groups[-1] = groups[-1][:rounds]
        found = figure(groups[-1], spread(groups))
        covered.append(found.low <= np.e <= found.high)
    assert 0.92 <= np.mean(covered) <= 0.995


def test_a_way_that_varies_more_than_the_others_has_its_own_spread() -> None:
    shared = spread([[1.0, 1.01]] * 10)
    narrow, wide = figure([1.0, 1.01], shared), figure([1.0, 2.0], shared)
    assert narrow.high - narrow.low < 0.1
    assert wide.high - wide.low > 1


def test_values_of_zero_have_intervals() -> None:
    assert figure([0.0, 0.0, 0.0]) == Figure(median=0, low=0, high=0, rounds=3)


def test_one_round_has_no_interval() -> None:
    assert figure([2.0]).low is None
    assert not is_narrow(figure([2.0]), 0.5)


def test_an_outlier_is_marked_and_stays_in_the_figures() -> None:
    runs = [a_run(seconds, round) for round, seconds in enumerate([1.0, 1.01, 0.99, 1.02, 5.0], 1)]
    marked = with_outliers(runs, "elapsed_s")
    assert [run.outlier for run in marked] == ["", "", "", "", "elapsed_s"]
    assert cell("w", 10, marked).figures["elapsed_s"].rounds == 5


def test_few_values_or_near_ones_are_no_outliers() -> None:
    assert outliers([1.0, 1.0, 9.0]) == [False] * 3
    assert outliers([1.0, 1.0, 1.0, 1.0, 1.01]) == [False] * 5


def test_warm_up_and_failed_runs_are_in_no_figure() -> None:
    runs = [a_run(9.0, 0), a_run(1.0, 1), a_run(99.0, 2, error="exit code 1: it broke")]
    found = cell("w", 10, runs)
    assert found.figures["elapsed_s"] == Figure(median=1.0)


def a_contestant(way: str, median: float, low: float, high: float) -> Contestant:
    return Contestant(way, Figure(median=median, low=low, high=high, rounds=3))


def test_ways_whose_intervals_overlap_share_a_place() -> None:
    found = ranking(
        10,
        "elapsed_s",
        [a_contestant("c", 4, 3.9, 4.1), a_contestant("a", 1, 0.9, 1.2), a_contestant("b", 1.1, 1.0, 1.3)],
        {"d": "it failed"},
    )
    assert [(each.way, each.place, each.tied) for each in found.places] == [
        ("a", 1, True), ("b", 1, True), ("c", 3, False)
    ]  # fmt: skip
    assert found.places[2].ratio == pytest.approx(4)
    assert found.not_ranked == {"d": "it failed"}


def test_one_round_is_compared_with_an_interval() -> None:
    wide = Figure(median=3, low=1, high=9, rounds=2)
    assert overlap(wide, Figure(median=4))
    assert not overlap(Figure(median=1), Figure(median=2))
    assert overlap(Figure(median=1), Figure(median=1.02))
