"""Results of comparisons that nobody has measured, with round numbers, and prices to go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.comparison.results import (
    Cell,
    ComparisonManifest,
    Figure,
    Machine,
    RankedPlace,
    Ranking,
    Results,
    Way,
)
from pipelines.cost.machines import DISK, NODES, PUBSUB, STREAMED, TABLE, worker_prices
from pipelines.cost.prices import Price, Prices

Kind = Literal["direct", "endpoint", "batch_job"]


@dataclass(frozen=True)
class MeasuredWay:
    """A way as it might have been measured.

    Attributes:
      kind: where the model runs.
      pipeline: microseconds of a core for each row, of the pipeline.
      server: likewise of the server.
      fixed: seconds of a core for each run.
      p99: milliseconds, of a stream, at any rate.
      rows_per_second: of a batch run.
      spread: how far the interval of each figure goes from its median, as a share; None with one round.
      not_ranked: why it has no place, at which loads.
      settings: in words.
    """

    kind: Kind
    pipeline: float = 10.0
    server: float = 0.0
    fixed: float = 0.0
    p99: float = 50.0
    rows_per_second: float = 100_000.0
    spread: float | None = 0.02
    not_ranked: Mapping[float, str] | None = None
    settings: tuple[str, ...] = ()


DIRECT = MeasuredWay("direct", pipeline=10.0, fixed=5.0, p99=30.0, settings=("runtime: c", "1,000 rows in a call"))
ENDPOINT = MeasuredWay("endpoint", pipeline=6.0, server=20.0, fixed=4.0, p99=80.0, rows_per_second=40_000.0)
JOB = MeasuredWay("batch_job", pipeline=30.0, server=15.0, fixed=8.0, rows_per_second=20_000.0)
STREAM_SECONDS = 60.0


def batch_results(
    ways: Mapping[str, MeasuredWay] | None = None, loads: Sequence[float] = (10_000, 100_000, 1_000_000)
) -> Results:
    return _results("batch", ways or {"direct": DIRECT, "endpoint": ENDPOINT, "job": JOB}, loads)


def stream_results(ways: Mapping[str, MeasuredWay] | None = None, loads: Sequence[float] = (50, 100, 500)) -> Results:
    return _results("stream", ways or {"direct": DIRECT, "endpoint": ENDPOINT}, loads)


def price_names() -> list[str]:
    """All prices that costs of ways may need."""
    names = [*worker_prices("batch"), *worker_prices("streaming"), DISK, PUBSUB, STREAMED, TABLE]
    return [*names, *(each.node_price(use) for each in NODES for use in ("online", "batch"))]


def all_prices(
    amounts: Mapping[str, float] | None = None, verified: bool = True, without: Sequence[str] = ()
) -> Prices:
    """Prices for all that is needed: round numbers, and nodes by their vCPUs."""
    found: dict[str, float] = {
        "dataflow_batch_vcpu_hour": 0.05,
        "dataflow_batch_memory_gb_hour": 0.004,
        "dataflow_streaming_vcpu_hour": 0.07,
        "dataflow_streaming_memory_gb_hour": 0.004,
        DISK: 0.00005,
        PUBSUB: 0.04,
        TABLE: 0.025,
        STREAMED: 0.018,
    }
    for each in NODES:
        found |= {each.node_price(use): 0.055 * each.vcpus for use in ("online", "batch")}
    found |= dict(amounts or {})
    return Prices(
        prices={
            name: Price(amount=amount, date="2026-11", source="a test", verified=verified)
            for name, amount in found.items()
            if name not in without
        }
    )


def _results(kind: Literal["batch", "stream"], ways: Mapping[str, MeasuredWay], loads: Sequence[float]) -> Results:
    figure = "elapsed_s" if kind == "batch" else "latency.total.p99"
    return Results(
        kind=kind,
        name=f"{kind}-of-a-test",
        manifest=_manifest(),
        ways=tuple(Way(name=name, kind=way.kind, settings=way.settings) for name, way in ways.items()),
        loads=tuple(loads),
        runs=(),
        cells=tuple(_cell(kind, name, way, load) for load in loads for name, way in ways.items()),
        parity=(),
        rankings=tuple(_ranking(kind, figure, ways, load) for load in loads),
    )


def _cell(kind: str, name: str, way: MeasuredWay, load: float) -> Cell:
    rows = load if kind == "batch" else load * STREAM_SECONDS
    pipeline = way.fixed + way.pipeline * rows / 1e6
    server = way.server * rows / 1e6
    figures: dict[str, float] = {
        "rows_read": rows,
        "pipeline_cpu_s": pipeline,
        "cpu_s": pipeline + server,
        "pipeline_peak_mb": 800.0,
        "elapsed_s": 5 + rows / way.rows_per_second if kind == "batch" else STREAM_SECONDS,
    }
    if way.kind != "direct":
        figures |= {"server_cpu_s": server, "server_peak_mb": 900.0}
    if kind == "stream":
        figures |= {"latency.total.p99": way.p99, "latency.total.p50": way.p99 / 3}
    return Cell(way=name, load=load, figures={key: _figure(value, way.spread) for key, value in figures.items()})


def _figure(value: float, spread: float | None) -> Figure:
    if spread is None:
        return Figure(median=value)
    return Figure(median=value, low=value * (1 - spread), high=value * (1 + spread), rounds=5)


def _ranking(kind: str, figure: str, ways: Mapping[str, MeasuredWay], load: float) -> Ranking:
    refused = {name: way.not_ranked[load] for name, way in ways.items() if load in (way.not_ranked or {})}  # type: ignore[index]
    values = {
        name: _cell(kind, name, way, load).figures[figure].median for name, way in ways.items() if name not in refused
    }
    best = min(values.values(), default=1.0)
    places = [
        RankedPlace(way=name, place=index, value=value, ratio=value / best)
        for index, (name, value) in enumerate(sorted(values.items(), key=lambda item: item[1]), 1)
    ]
    return Ranking(load=load, figure=figure, places=tuple(places), not_ranked=refused)


def _manifest() -> ComparisonManifest:
    shared: dict[str, Any] = {"config_hash": "0" * 64, "model_hash": "1" * 64}
    return ComparisonManifest(
        begun="2026-11-27T01:00:00+00:00",
        ended="2026-11-27T01:10:00+00:00",
        command="a test",
        config="compare.json",
        model="model/trained/v1",
        source="births",
        machine=Machine(cpu="A processor", cores=2, memory_gb=8.0, system="Linux 6"),
        versions={"tensorflow": "2.21.0"},
        seconds=600.0,
        **shared,
    )
