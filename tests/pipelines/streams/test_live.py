"""How a stream goes, as people see it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from rich.console import Console

from pipelines import process_state
from pipelines.connectors.streaming.stop import STOPPING
from pipelines.engine.live_stream import LiveStream
from pipelines.telemetry.latency import LATENCIES
from pipelines.telemetry.tally import TALLY
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def nothing_yet() -> Iterator[None]:
    LATENCIES.clear()
    process_state.reset()
    yield
    process_state.reset()


def wait_for(words: str, shown: io.StringIO) -> None:
    wait_until(lambda: words in shown.getvalue(), lambda: f"{words!r} is shown: {shown.getvalue()}")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_lines_tell_what_is_done_and_that_it_ends(is_terminal: bool) -> None:
    shown = io.StringIO()
    waiting = [7_000]
    console = Console(file=shown, force_terminal=is_terminal, width=200)
    with LiveStream(console, lambda: waiting[0], every_s=0.2):
        TALLY.add(read=1_500, dead_lettered=2, repeated=3)
        wait_for("1,500 messages read, 2 dead-lettered, 3 repeats dropped, ", shown)
        wait_for("backlog 7,000", shown)
        waiting[0] = 12
        wait_for("backlog 12", shown)
        STOPPING.set()
        wait_for("ending: finishing what was taken", shown)
    assert shown.getvalue().count("ending:") == 1


def test_latencies_are_of_the_time_since_the_line_before() -> None:
    with LiveStream(Console(file=io.StringIO()), lambda: None, every_s=100) as live:
        assert "backlog" not in live.line()
        LATENCIES.add("total", np.full(10, 20_000))
        assert "total 20" in live.line()
        assert "total" not in live.line()
