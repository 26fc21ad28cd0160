"""Percentiles from buckets, against numpy's own."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.telemetry.latency import Latencies, percentiles


@pytest.mark.parametrize("scale", [50.0, 5_000.0, 5_000_000.0])
def test_percentiles_are_right_to_four_percent(scale: float) -> None:
    rng = np.random.default_rng(3)
    durations = rng.lognormal(np.log(scale), 1.0, 100_000).astype(np.int64)
    found = Latencies()
    for part in np.array_split(durations, 37):
        found.add("total", part)
    for percent in (50, 95, 99):
        wanted = np.percentile(durations, percent) / 1000
        assert found.percentiles("total")[f"p{percent}"] == pytest.approx(wanted, rel=0.05)


def test_one_duration_of_many_rows() -> None:
    found = Latencies()
    found.add("model", 10_000, 99)
    found.add("model", 1_000_000, 1)
    assert found.percentiles("model")["p95"] == pytest.approx(10, rel=0.05)
    assert percentiles(found.counts()["model"], (99.9,))["p99.9"] == pytest.approx(1_000, rel=0.05)


def test_nothing_and_what_is_out_of_range() -> None:
    found = Latencies()
    assert found.percentiles("lag") == {}
    found.add("lag", np.array([-5, 0, 10**15]))
    assert found.percentiles("lag")["p50"] < 0.01
    found.clear()
    assert found.percentiles("lag") == {}
