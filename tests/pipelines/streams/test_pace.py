"""A latency budget chooses how large batches get and how long they wait, so that both fit into it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipelines.connectors.streaming.batch_sizing import Choice, Pace
from tests.support.commands import Command
from tests.support.streams import sets


def after(budget_ms: float, rate: float, fixed_ms: float, row_us: float, batches: int = 300) -> tuple[Choice, float]:
    """The choice after batches of a stream, and the latency of its slowest message by then, planned jitter aside."""
    generator = random.Random(3)
    pace = Pace()
    pace.begin(budget_ms, 16_384)
    for _ in range(batches):
        choice = pace.or_else(1, 0)
        rows = max(1, min(choice.max_rows, int(rate * choice.max_wait_ms / 1000)))
        taken = (fixed_ms + rows * row_us / 1000) * generator.uniform(0.9, 1.2)
        pace.observe(rows, taken, rate)
    choice = pace.or_else(1, 0)
    rows = max(1, min(choice.max_rows, int(rate * choice.max_wait_ms / 1000)))
    return choice, choice.max_wait_ms + fixed_ms + rows * row_us / 1000


@pytest.mark.parametrize("rate", [1, 500, 5_000, 100_000])
@pytest.mark.parametrize(("fixed_ms", "row_us"), [(5, 2), (30, 0.5), (1, 200), (0.1, 0.01)])
@pytest.mark.parametrize("budget_ms", [50, 100, 1_000])
def test_waiting_and_predicting_fit_into_the_budget(
    budget_ms: float, rate: float, fixed_ms: float, row_us: float
) -> None:
    choice, latency = after(budget_ms, rate, fixed_ms, row_us)
    assert latency <= budget_ms
    assert choice.max_rows >= 1
    # What is done soon is waited for long: that makes batches large.
    if fixed_ms < budget_ms / 10 and rate * row_us < 500_000:
        assert choice.max_wait_ms > budget_ms / 4
    # A full batch leaves room for the one behind it.
    if fixed_ms < budget_ms / 10:
        assert fixed_ms + choice.max_rows * row_us / 1000 <= budget_ms / 2 or choice.max_rows == 1


def test_it_follows_a_model_that_becomes_slower() -> None:
    pace = Pace()
    pace.begin(100, 16_384)
    for slowness in (1, 8):
        for _ in range(400):
            rows = 50 + 10 * random.Random(1).randrange(5)
            pace.observe(rows, slowness * (2 + rows * 0.05), 5_000)
    choice = pace.or_else(1, 0)
    assert choice.max_wait_ms < 40
    assert choice.max_rows < 100


def test_without_a_budget_the_config_is_gone_by() -> None:
    pace = Pace()
    pace.begin(None, 100)
    pace.observe(10, 5, 100)
    assert pace.choice is None
    assert pace.or_else(77, 3.5) == Choice(77, 3.5)


def test_a_stream_goes_by_its_budget_and_says_what_it_chose(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone_by: list[Choice] = []
    or_else = Pace.or_else

    def noted(self: Pace, max_rows: int, max_wait_ms: float) -> Choice:
        gone_by.append(or_else(self, max_rows, max_wait_ms))
        return gone_by[-1]

    monkeypatch.setattr(Pace, "or_else", noted)
    changes = {"batching": {"latency_budget_ms": 150}, "source__rate": 2_000}
    result = command("stream", "--max-messages", "12000", *sets(tmp_path, **changes), "--json")
    assert result.code == 0, result
    chosen = result.summary["batching"]
    assert 0 < chosen["max_wait_ms"] < 150
    assert 1 < chosen["max_rows"] <= 16_384
    assert result.summary["rows_written"] == 12_000
    # The source asks again and again, and what it is told follows what micro-batches take.
    first, *later = gone_by
    assert first == Choice(1_000, 0.2 * 150)
    assert len(set(later) - {first}) > 1
    assert all(each.max_wait_ms < 150 for each in later)
