"""Costs of ways: fits, machines, break-evens, held against a search of all that could be rented."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.comparison.costs import costs_of
from pipelines.comparison.demands import demand_of, load_for
from pipelines.comparison.results import Results
from pipelines.config.batch_job import BatchJobConfig
from pipelines.config.errors import ConfigError
from pipelines.cost import prices as price_files
from pipelines.cost.assumptions import DAYS_A_MONTH, Assumptions
from pipelines.cost.batch_job import estimated, price_name
from pipelines.cost.break_evens import Flip, flips, readable, volumes_between
from pipelines.cost.dataflow import cost_of
from pipelines.cost.fits import LinearFit, fitted
from pipelines.cost.machines import DISK, NODES, Tariff
from pipelines.cost.ways import Demand, batch_month, stream_month
from tests.support.machine_search import searched
from tests.support.priced_results import (
    DIRECT,
    ENDPOINT,
    JOB,
    MeasuredWay,
    all_prices,
    batch_results,
    price_names,
    stream_results,
)

GIVEN = Assumptions()


def test_fits_find_what_was_put_in() -> None:
    demand = demand_of(batch_results(), batch_results().way("direct"))
    assert demand.pipeline.fixed == pytest.approx(5.0)
    assert demand.pipeline.per_row == pytest.approx(10e-6)
    assert demand.server is None
    endpoint = demand_of(stream_results(), stream_results().way("endpoint"))
    assert endpoint.server is not None
    assert endpoint.server.per_row == pytest.approx(20e-6)
    assert endpoint.server_gb == pytest.approx(900 / 1024)


def test_one_outlier_does_not_move_a_fit() -> None:
    points = [(rows, 5 + rows * 1e-5) for rows in (1e4, 3e4, 1e5, 3e5, 1e6)]
    points[1] = (3e4, 60.0)
    assert fitted(points).per_row == pytest.approx(1e-5, rel=0.02)


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(-10, 1e6)), max_size=8))
def test_fits_are_never_negative(points: list[tuple[float, float]]) -> None:
    found = fitted(points)
    assert found.fixed >= 0
    assert found.per_row >= 0


def test_seconds_that_do_not_grow_are_those_of_the_rows() -> None:
    assert fitted([(100, 8.0), (1000, 7.0)]) == LinearFit(pytest.approx(6.8888888), pytest.approx(1 / 900))
    assert fitted([(1000, 7.0), (1000, 8.0)]) == LinearFit(0.0, 0.008)


def test_noise_of_small_runs_is_not_taken_for_rows() -> None:
    """Starting takes 4 seconds, give or take half of one; a row takes 10 microseconds."""
    points = [(300, 3.5), (600, 4.5), (3000, 4.3), (30_000, 4.4)]
    assert fitted(points).per_row == pytest.approx(10e-6, rel=3)


amounts = st.floats(1e-4, 10.0)
seconds = st.floats(1e-8, 3e-4)
demands = st.builds(
    Demand,
    st.sampled_from(["direct", "endpoint", "batch_job"]),
    st.builds(LinearFit, st.floats(0, 100), seconds),
    st.builds(LinearFit, st.floats(0, 100), seconds),
    st.floats(0, 6.0),
    st.floats(0, 12.0),
)


@settings(max_examples=60)
@given(st.fixed_dictionaries(dict.fromkeys(price_names(), amounts)), demands, st.floats(1, 1e8), st.floats(0.5, 8))
def test_a_batch_costs_the_least_that_a_search_finds(
    costs: dict[str, float], demand: Demand, rows: float, within: float
) -> None:
    prices = all_prices(costs)
    found = batch_month(demand, rows, Tariff(prices, replace(GIVEN, within_hours=within)))
    assert found.total == pytest.approx(searched("batch", demand, rows, prices, within), rel=1e-6)


@settings(max_examples=60)
@given(st.fixed_dictionaries(dict.fromkeys(price_names(), amounts)), demands, st.floats(0, 2e5))
def test_a_stream_costs_the_least_that_a_search_finds(costs: dict[str, float], demand: Demand, rate: float) -> None:
    if demand.kind == "batch_job":
        demand = replace(demand, kind="endpoint")
    prices = all_prices(costs)
    found = stream_month(demand, rate, Tariff(prices, GIVEN))
    assert found.total is not None
    machines = sum(found.parts.get(name, 0.0) for name in ("workers", "nodes"))
    assert machines == pytest.approx(searched("stream", demand, rate, prices, 1.0), rel=1e-6)


@settings(max_examples=25)
@given(st.fixed_dictionaries(dict.fromkeys(price_names(), amounts)), st.sampled_from(["batch", "stream"]))
def test_ways_change_places_where_it_is_said(costs: dict[str, float], kind: str) -> None:
    results = batch_results() if kind == "batch" else stream_results()
    assumptions = Assumptions(volume=1000)
    tariff = Tariff(all_prices(costs), assumptions)
    found = costs_of(results, all_prices(costs), assumptions)
    month = batch_month if kind == "batch" else stream_month
    by_way = {way.name: demand_of(results, way) for way in results.ways}
    for flip in found.break_evens:
        below, above = (
            {name: month(demand, volume, tariff).total or 0.0 for name, demand in by_way.items()}
            for volume in (flip.volume * (1 - 1e-8), flip.volume)
        )
        assert below[flip.below] <= min(below.values()) * (1 + 1e-9), flip
        assert above[flip.above] <= min(above.values()) * (1 + 1e-9), flip
        assert above[flip.below] > above[flip.above], flip
    for before, after in itertools.pairwise(found.break_evens):
        assert before.above == after.below
        assert before.volume < after.volume


def test_a_break_even_is_where_two_lines_cross() -> None:
    def rented(volume: float) -> float:
        return 100.0

    def used(volume: float) -> float:
        return volume / 10

    assert flips({"used": used, "rented": rented}, volumes_between(1, 1e6)) == [
        Flip(pytest.approx(1000.0, rel=1e-8), "used", "rented")
    ]


@pytest.mark.parametrize("a_decade", [64, 3])
def test_steps_change_places_and_back(a_decade: int) -> None:
    """Whole machines of 10 against those of 7: each change is found, those close together are left out."""

    def large(volume: float) -> float:
        return 10.0 * math.ceil(volume / 100)

    def small(volume: float) -> float:
        return 7.0 * math.ceil(volume / 60)

    found = flips({"large": large, "small": small}, volumes_between(10, 1e4, a_decade))
    assert len(found) >= (3 if a_decade == 3 else 5)
    assert all(before.above == after.below for before, after in itertools.pairwise(found))
    for each in found:
        ways = {"large": large, "small": small}
        assert ways[each.above](each.volume) < ways[each.below](each.volume)
        assert ways[each.below](each.volume * (1 - 1e-8)) <= ways[each.above](each.volume * (1 - 1e-8))
    kept = readable(found)
    assert set(kept) <= set(found)
    assert len(kept) < len(found)
    assert (kept[0].below, kept[-1].above) == (found[0].below, found[-1].above)


def test_an_equal_way_is_no_change() -> None:
    assert flips({"a": lambda volume: 5.0, "b": lambda volume: 5.0}, volumes_between(1, 100)) == []
    assert flips({"a": lambda volume: None}, volumes_between(1, 100)) == []


def test_costs_of_batch_runs() -> None:
    found = costs_of(batch_results(), all_prices(), Assumptions(volume=10_000_000))
    assert (found.volume, found.unit, found.currency) == (10_000_000, "rows a day", "USD")
    ways = {each.way: each for each in found.ways}
    assert set(ways["direct"].parts) == {"workers"}
    assert set(ways["endpoint"].parts) == {"workers", "nodes"}
    assert set(ways["job"].parts) == {"workers", "job"}
    for each in found.ways:
        assert each.month == pytest.approx(sum(each.parts.values()))
        assert (10_000_000, each.month) in each.curve
        assert list(each.curve) == sorted(each.curve)
        assert list(each.runs) == ["10000", "100000", "1000000"]
        assert each.missing == ()
    # One n1-standard-2 at 0.055 a vCPU, all month: 80.3, whatever the rows.
    assert ways["endpoint"].parts["nodes"] == pytest.approx(730 * 0.11)
    assert "1 x n1-standard-2 node, all month" in ways["endpoint"].fleet
    # 105 seconds of a core, three times slower, at 80%, on one vCPU with 3.75 GB and 30 GB, after 3 minutes of start.
    hour = 0.05 + 3.75 * 0.004 + 30 * 0.00005
    assert ways["direct"].month == pytest.approx(DAYS_A_MONTH * hour * (105 * 3 / 0.8 / 3600 + 0.05), rel=1e-6)
    assert any("half of a run's time" in each for each in found.assumptions)


def test_costs_of_streams_have_the_messages_in_all_ways() -> None:
    found = costs_of(stream_results(), all_prices(), Assumptions(volume=2000))
    parts = [each.parts for each in found.ways]
    gb = 2000 * 730 * 3600 / 2**30
    assert all(each["messages"] == pytest.approx(2 * gb * 300 * 0.04) for each in parts)
    assert all(each["table"] == pytest.approx(gb * 400 * 0.025) for each in parts)
    assert found.ways[0].runs["500"] > 0
    assert found.ways[0].fleet == ("1 x n1-standard-1 worker, all month",)


def test_a_job_cannot_predict_a_stream() -> None:
    found = costs_of(stream_results({"job": JOB}), all_prices(), Assumptions())
    assert (found.ways[0].month, found.ways[0].curve, found.break_evens) == (None, (), ())


@pytest.mark.parametrize("name", ["dataflow_batch_vcpu_hour", DISK])
def test_a_price_that_all_need_is_missing(name: str) -> None:
    found = costs_of(batch_results(), all_prices(without=[name]), Assumptions(volume=1e6))
    assert [each.month for each in found.ways] == [None, None, None]
    assert all(each.missing == (name,) for each in found.ways)
    assert found.break_evens == ()


def test_prices_of_some_machines_are_missing() -> None:
    without = [each.node_price("online") for each in NODES]
    ways = {each.way: each for each in costs_of(batch_results(), all_prices(without=without), Assumptions()).ways}
    assert ways["endpoint"].month is None
    assert ways["endpoint"].missing == tuple(without)
    assert ways["direct"].month is not None
    some = {each.way: each for each in costs_of(batch_results(), all_prices(without=without[:1]), Assumptions()).ways}
    assert some["endpoint"].fleet[-1] == "1 x n1-standard-4 node, all month"
    assert some["endpoint"].missing == (without[0],)


def test_a_price_of_messages_that_is_missing_is_named() -> None:
    found = costs_of(stream_results(), all_prices(without=["pubsub_throughput_gb"]), Assumptions())
    assert all(each.missing == ("pubsub_throughput_gb",) for each in found.ways)
    assert all("messages" not in each.parts and each.month for each in found.ways)


def test_no_volume() -> None:
    batch = costs_of(batch_results(), all_prices(), Assumptions(volume=0))
    assert [round(each.month or 0, 2) for each in batch.ways] == [0.0, 80.3, 0.0]
    stream = costs_of(stream_results(), all_prices(), Assumptions(volume=0))
    assert all((each.month or 0) > 0 for each in stream.ways)


def test_one_load_only() -> None:
    results = batch_results(loads=[100_000])
    assert demand_of(results, results.way("direct")).pipeline == LinearFit(0.0, pytest.approx(6 / 100_000))
    assert costs_of(results, all_prices(), Assumptions()).volume == 100_000


def test_ways_that_are_not_ranked_cost_nothing() -> None:
    refused = replace(ENDPOINT, not_ranked=dict.fromkeys((10_000, 100_000, 1_000_000), "outputs differ"))
    results = batch_results({"direct": DIRECT, "endpoint": refused})
    assert [each.way for each in costs_of(results, all_prices(), Assumptions()).ways] == ["direct"]


def test_a_server_elsewhere_is_not_known() -> None:
    results = batch_results()
    cells = [
        cell.model_copy(update={"figures": {k: v for k, v in cell.figures.items() if k != "server_cpu_s"}})
        for cell in results.cells
    ]
    found = costs_of(results.model_copy(update={"cells": tuple(cells)}), all_prices(), Assumptions())
    assert [each.month is None for each in found.ways] == [False, True, True]


def test_too_little_time_and_too_much_memory() -> None:
    late = batch_month(
        Demand("direct", LinearFit(0, 1e-5)), 1e6, Tariff(all_prices(), replace(GIVEN, within_hours=0.01))
    )
    assert late.total is None
    assert "starting alone" in late.problem
    large = batch_month(Demand("direct", LinearFit(0, 1e-5), None, 9.0), 1e6, Tariff(all_prices(), GIVEN))
    assert large.problem == "no machine type has 9.0 GB of memory for each vCPU"


def test_runs_end_in_time() -> None:
    for way, rows, within in itertools.product(batch_results().ways, (1e3, 1e6, 1e9, 1e11), (0.5, 1, 12)):
        bill = batch_month(
            demand_of(batch_results(), way), rows, Tariff(all_prices(), replace(GIVEN, within_hours=within))
        )
        assert bill.hours <= within * (1 + 1e-9), (way.name, rows, within)


@pytest.mark.parametrize(("volume", "load"), [(1, 10_000), (10_000, 10_000), (20_000, 100_000), (1e9, 1_000_000)])
def test_the_load_that_tells_most_of_a_volume(volume: float, load: float) -> None:
    assert load_for(batch_results(), volume) == load


def test_packaged_prices_have_all_that_is_needed() -> None:
    packaged = price_files.load()
    assert set(price_names()) <= set(packaged.prices)
    found = costs_of(batch_results(), packaged, Assumptions(volume=1e7))
    assert all(each.month and not each.missing for each in found.ways)
    assert set(found.unverified) <= set(packaged.prices)
    assert len(found.prices) == len(found.unverified)


@pytest.fixture
def own_prices(tmp_path: Path) -> Callable[..., str]:
    def write(currency: str = "USD", **amounts: float) -> str:
        path = tmp_path / "own.json"
        prices = {name: {"amount": value, "date": "2026-11", "source": "us"} for name, value in amounts.items()}
        path.write_text(json.dumps({"currency": currency, "prices": prices}), "utf-8")
        return str(path)

    return write


def test_a_persons_own_prices_replace_the_packaged_ones_by_name(own_prices: Callable[..., str]) -> None:
    packaged = price_files.load()
    own = price_files.load(own_prices(dataflow_batch_vcpu_hour=9.0))
    assert own.prices["dataflow_batch_vcpu_hour"].amount == 9.0
    others = {name: price for name, price in own.prices.items() if name != "dataflow_batch_vcpu_hour"}
    assert others.items() <= packaged.prices.items()
    assert len(own.prices) == len(packaged.prices)
    found = costs_of(batch_results(), own, Assumptions(volume=1e7))
    assert all(each.month and not each.missing for each in found.ways)
    said = "1 price is of your file (--prices): dataflow_batch_vcpu_hour; the others are the packaged ones of configs/"
    assert found.assumptions[-1].startswith(said)
    assert [each for each in found.prices if each.endswith(", of --prices")] == [
        "dataflow_batch_vcpu_hour: 9 USD, 2026-11, us, of --prices"
    ]
    assert not any("--prices" in each for each in costs_of(batch_results(), packaged, Assumptions()).assumptions)


def test_prices_of_another_currency_are_taken_alone(own_prices: Callable[..., str]) -> None:
    own = price_files.load(own_prices("EUR", dataflow_batch_vcpu_hour=9.0))
    assert (own.currency, list(own.prices)) == ("EUR", ["dataflow_batch_vcpu_hour"])
    assert own.origin(["dataflow_batch_vcpu_hour", DISK]) == (
        "all prices are those of your file (--prices), in EUR; the packaged ones are in USD"
    )


def test_prices_without_their_form(tmp_path: Path) -> None:
    path = tmp_path / "plain.json"
    path.write_text('{"dataflow_batch_vcpu_hour": 0.08}', "utf-8")
    with pytest.raises(ConfigError, match=r'no prices are in it; give \{"prices": \{"NAME"'):
        price_files.load(str(path))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("dataflow_batch_vcpu_hourr", "; did you mean 'dataflow_batch_vcpu_hour'?"),
        ("vertex_batch_n1_standrd_2_hour", "; did you mean 'vertex_batch_n1_standard_2_hour'?"),
        ("vertex_online_n1_standard_16_hour", "; did you mean 'vertex_online_n1_standard_"),
        ("x", ""),
    ],
)
def test_a_price_that_nothing_asks_for(own_prices: Callable[..., str], name: str, near: str) -> None:
    path = own_prices(**{name: 1.0})
    with pytest.raises(ConfigError) as error:
        price_files.load(path)
    (problem,) = error.value.problems
    said = f"--prices {path}: prices.{name}: no price has this name; configs/prices.json has all names"
    assert problem.startswith(said + near)
    assert near or problem == said


@pytest.mark.parametrize(
    "changes",
    [
        {"machine_type": "n2-highmem-16"},
        {"machine_type": "a2-highgpu-1g"},
        {"machine_type": "n1-standard-8", "accelerator_type": "NVIDIA_TESLA_T4", "accelerator_count": 2},
    ],
    ids=str,
)
def test_a_price_of_a_node_that_is_not_packaged(own_prices: Callable[..., str], changes: dict[str, Any]) -> None:
    keys = {"type": "batch_job", "resource": "r", "folder": "f", "signature_from": "m", **changes}
    config = BatchJobConfig.model_validate(keys)
    prices = price_files.load(own_prices(**{price_name(config): 2.0}))
    assert estimated(config, 1, prices).in_words().endswith("price of 2026-11, of --prices)")
    packaged = BatchJobConfig.model_validate({**keys, "machine_type": "n1-standard-2", "accelerator_type": None})
    assert "of --prices" not in estimated(packaged, 1, prices).in_words()


def test_a_job_of_dataflow_tells_which_prices_are_a_persons_own(own_prices: Callable[..., str]) -> None:
    name = SimpleNamespace(name="TotalVcpuTime", origin="dataflow/v1b3", context={})
    used = [SimpleNamespace(name=name, scalar=3600.0)]
    own = cost_of(used, price_files.load(own_prices(dataflow_batch_vcpu_hour=9.0)))
    assert own is not None
    assert own.in_words() == "9.0000 USD (1.000 vCPU-h; prices of 2026-11; of --prices: dataflow_batch_vcpu_hour)"
    assert own.findings()["own_prices"] == ["dataflow_batch_vcpu_hour"]
    packaged = cost_of(used, price_files.load())
    assert packaged is not None
    assert "own_prices" not in packaged.findings()


def test_costs_are_part_of_results() -> None:
    results = batch_results()
    with_costs = results.model_copy(update={"costs": costs_of(results, all_prices(), Assumptions())})
    assert Results.model_validate_json(with_costs.model_dump_json()) == with_costs


def test_large_numbers_do_not_overflow() -> None:
    results = batch_results({"direct": MeasuredWay("direct", pipeline=1e12)}, loads=[1e15])
    found = costs_of(results, all_prices(), Assumptions(volume=1e15))
    assert found.ways[0].month is not None


def test_several_changes_between_two_volumes_are_found() -> None:
    lines = {"a": lambda v: v, "b": lambda v: 10 + v / 2, "c": lambda v: 20 + v / 4}
    found = flips(lines, [10.0, 100.0])
    assert [(each.below, each.above) for each in found] == [("a", "b"), ("b", "c")]
    assert [each.volume for each in found] == pytest.approx([20, 40])
