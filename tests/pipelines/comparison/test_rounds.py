"""What a comparison runs next: each way once at each load before any is run twice, as runs are expected to take."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipelines.comparison.results import Run
from pipelines.comparison.rounds import Rounds, Slot

START_S = 2.0


def run(way: str, load: float, work: float, *, round: int = 1, error: str = "", **steps: float) -> Run:
    return Run(
        way=way,
        load=load,
        round=round,
        begun="2026-11-27T00:00:00+00:00",
        elapsed_s=START_S + work,
        start_s=START_S,
        work_s=work,
        steps_s=steps,
        error=error,
    )


def rounds(*slots: Slot, seconds: float = 60, most: int = 20, unranked: tuple[str, ...] = ()) -> Rounds:
    return Rounds(slots, "elapsed_s", 0.05, most, seconds, unranked=unranked)


def slots(loads: tuple[float, ...], ways: str = "ab") -> list[Slot]:
    return [Slot(way, load) for load in loads for way in ways]


@pytest.mark.parametrize(
    ("measured", "load", "least", "most"),
    [
        # Few rows: nearly all that a run takes is the same for more rows.
        ({1_000: 0.5}, 100_000, 2.5, 3.1),
        ({1_000: 0.5}, 5_000_000, 5, 40),
        # Seconds for a thousand rows: a service is called for each of them.
        ({1_000: 8.0}, 100_000, 300, 900),
        # Two loads that take the same: so will the next.
        ({1_000: 0.50, 10_000: 0.48}, 100_000, 2.4, 3.6),
        # Two loads that tell what a row takes.
        ({10_000: 8.0, 100_000: 62.0}, 1_000_000, 400, 800),
        ({100_000: 1.5, 1_000_000: 9.0}, 10_000_000, 60, 110),
    ],
)
def test_what_does_not_depend_on_rows_is_not_scaled(
    measured: Mapping[float, float], load: float, least: float, most: float
) -> None:
    found = rounds(Slot("a", load)).expected(Slot("a", load), [run("a", rows, work) for rows, work in measured.items()])
    assert least <= found <= most


def test_waiting_for_the_service_of_a_job_is_not_scaled() -> None:
    job = run("a", 10_000, 600.0, prepare=2, submit=1, wait=595, join=2)
    assert rounds(Slot("a", 100_000)).expected(Slot("a", 100_000), [job]) < 1_200


def test_each_way_is_run_at_each_load_before_any_is_run_twice() -> None:
    runs: list[Run] = []
    schedule = rounds(*slots((1_000, 1_000_000)), seconds=26)
    while (following := schedule.next(runs)) is not None:
        slot, round = following
        runs.append(run(slot.way, slot.load, 0.5 if slot.load == 1_000 else 1.0, round=round))
    assert [(each.way, each.load) for each in runs[:4]] == [(s.way, s.load) for s in schedule.slots]
    assert {each.round for each in runs[:4]} == {1}
    assert len(runs) > 4


def test_warming_up_leaves_time_for_a_round() -> None:
    schedule = rounds(*slots((1_000, 10_000)), seconds=100)
    first = run("a", 1_000, 0.5, round=0)
    assert not schedule.is_warm(Slot("a", 1_000), [first])
    used = run("another", 1_000, 87.0, round=0)
    assert schedule.is_warm(Slot("a", 1_000), [used, first])


def test_a_way_that_is_left_alone_is_not_measured() -> None:
    schedule = rounds(*slots((10, 100)))
    assert schedule.next([]) == (Slot("a", 10), 1)
    failed = [run("b", load, 1.0, error="exit code 2: no such model") for load in (10, 100)]
    assert schedule.next(failed[:1]) is not None
    assert schedule.next(failed) is None
    assert schedule.is_warm(Slot("a", 10), failed)
    assert "fewer than two ways are left" in schedule.left_out(Slot("a", 10), failed)
    assert "no such model" in schedule.left_out(Slot("b", 10), failed)


def test_a_way_that_disagrees_is_measured_beside_two_that_agree() -> None:
    assert rounds(*slots((10,), "ab"), unranked=("b",)).next([]) is None
    assert rounds(*slots((10,), "abc"), unranked=("b",)).next([run("a", 10, 1.0)]) == (Slot("b", 10), 1)
