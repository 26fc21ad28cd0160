"""Makes results of comparisons as measured ones look: of batch runs, of streams, and with what can go wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

from pipelines.comparison.results import (
    BreakEven,
    Cell,
    ComparisonManifest,
    CostOfWay,
    Difference,
    Disagreement,
    Figure,
    Machine,
    Parity,
    RankedPlace,
    Ranking,
    Results,
    Run,
    Way,
    WayCosts,
)

DIRECT, MICRO, SINGLE, JOB = "direct", "endpoint, micro-batches", "endpoint, single", "batch job"
BATCH_WAYS = (
    Way(name=DIRECT, kind="direct", settings=("runtime native", "1,000 rows in a call", "2 processes")),
    Way(
        name=MICRO,
        kind="endpoint",
        settings=("protocol tf_serving_grpc", "1,000 rows in a call", "4 requests at a time"),
    ),
    Way(name=SINGLE, kind="endpoint", single=True, settings=("protocol tf_serving_grpc", "1 row in a call")),
    Way(name=JOB, kind="batch_job", settings=("runs on this machine", "JSON files", "2 workers at most")),
)
DIRECT_SINGLE = "direct, single"
STREAM_WAYS = (
    Way(name=DIRECT_SINGLE, kind="direct", single=True, settings=("runtime native", "1 row in a call")),
    Way(name="direct, micro-batches", kind="direct", settings=("runtime native", "up to 1,000 rows, waiting 1,000 ms")),
    Way(name=SINGLE, kind="endpoint", single=True, settings=("protocol tf_serving_rest", "1 row in a call")),
    Way(name=MICRO, kind="endpoint", settings=("protocol tf_serving_rest", "up to 1,000 rows, waiting 1,000 ms")),
)
SIZES, RATES = (10_000.0, 100_000.0, 1_000_000.0), (50.0, 100.0, 500.0, 5_000.0)
_TOO_SLOW = "one row a call takes 18 minutes at 1,000,000 rows: more than the 10 minutes of max_seconds"


def batch(rounds: int = 5, **changes: Any) -> Results:
    """Batch runs of four ways over three sizes; `changes` are members of `Results` to replace."""
    rng = random.Random(1)
    runs = [
        _batch_run(way, load, round, rng)
        for load in SIZES
        for round in range(rounds + 1)
        for way in BATCH_WAYS
        if (way.name, load) != (SINGLE, SIZES[-1])
    ]
    found = _summed("batch", "natality, batch", BATCH_WAYS, SIZES, runs, "elapsed_s")
    return found.model_copy(update={"costs": batch_costs(), **changes})


def stream(rounds: int = 5, **changes: Any) -> Results:
    """Streams of four ways at four rates; one row a request falls behind at the highest."""
    rng = random.Random(2)
    runs = [
        _stream_run(way, load, round, rng)
        for load in RATES
        for round in range(rounds + 1)
        for way in STREAM_WAYS
        if (way.name, load) != (SINGLE, RATES[-1])
    ]
    left_out = {(SINGLE, RATES[-1]): "it fell behind at 500 messages a second"}
    found = _summed("stream", "natality, stream", STREAM_WAYS, RATES, runs, "latency.total.p99", left_out)
    return found.model_copy(update={"costs": stream_costs(), **changes})


def disagreeing() -> Results:
    """Batch runs of which one way gives other values, and is not ranked."""
    found = batch()
    why = "it does not agree with direct: 3 rows differ, 1 is missing"
    examples = (
        Disagreement(key="source_id=nc-000017", what="weight_pounds", reference="7.4375", here="7.4901"),
        Disagreement(key="source_id=nc-000020", what="weight_pounds", reference="6.0120", here="NaN"),
        Disagreement(key="source_id=nc-000391", what="missing", reference="5.9018"),
    )
    differing = Parity(
        way=SINGLE, reference=DIRECT, rows=9_999, missing=1, failed_in_both=4, examples=examples, agrees=False,
        differences=(_difference(9_999, 0.0526, over=3),),
    )  # fmt: skip
    return found.model_copy(
        update={
            "parity": tuple(differing if each.way == SINGLE else each for each in found.parity),
            "rankings": tuple(_without(each, SINGLE, why) for each in found.rankings),
        }
    )


def tied() -> Results:
    """Batch runs of which the two fastest cannot be told apart at the smallest size."""
    found = batch()
    rankings = []
    for ranking in found.rankings:
        first, second, *others = ranking.places
        if ranking.load == SIZES[0]:
            second = second.model_copy(update={"place": 1, "tied": True})
            first = first.model_copy(update={"tied": True})
        rankings.append(ranking.model_copy(update={"places": (first, second, *others)}))
    return found.model_copy(update={"rankings": tuple(rankings)})


def with_failures() -> Results:
    """Batch runs of which some failed, and one is far from the others."""
    found = batch()
    error = "exit code 1: error: endpoint: 127.0.0.1:8500 refused the connection (3 attempts)"
    runs = list(found.runs)
    for index, run in enumerate(runs):
        if run.way == MICRO and run.load == SIZES[0] and run.round == 2:
            runs[index] = run.model_copy(update={"error": error, "exit_code": 1})
        if run.way == DIRECT and run.load == SIZES[1] and run.round == 4:
            runs[index] = run.model_copy(update={"outlier": "elapsed_s"})
    return found.model_copy(update={"runs": tuple(runs)})


def all_failed() -> Results:
    """A comparison of which no run came to its end."""
    found = batch(rounds=1)
    error = "exit code 2: error: model.path: model/trained/v9 is not there"
    runs = [run.model_copy(update={"error": error, "exit_code": 2}) for run in found.runs]
    cells = [Cell(way=each.way, load=each.load, left_out=f"it failed: {error}") for each in found.cells]
    parity = [Parity(way=each.way, reference=DIRECT, agrees=False, error=error) for each in found.parity]
    rankings = [
        Ranking(load=load, figure="elapsed_s", places=(), not_ranked={way.name: f"it failed: {error}" for way in ways})
        for load, ways in ((each, BATCH_WAYS) for each in SIZES)
    ]  # fmt: skip
    return found.model_copy(
        update={
            "runs": tuple(runs), "cells": tuple(cells), "parity": tuple(parity), "rankings": tuple(rankings),
            "costs": None,
        }
    )  # fmt: skip


def empty() -> Results:
    """A comparison that was stopped before its first run."""
    return batch().model_copy(
        update={"runs": (), "cells": (), "parity": (), "rankings": (), "costs": None, "loads": ()}
    )


def renamed(results: Results, names: dict[str, str]) -> Results:
    """The same results with other names of ways."""
    text = results.model_dump()

    def rename(value: Any) -> Any:
        if isinstance(value, dict):
            return {names.get(key, key): each if key == "kind" else rename(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [rename(each) for each in value]
        return names.get(value, value) if isinstance(value, str) else value

    return Results.model_validate(rename(text))


def hostile() -> Results:
    """Batch runs whose ways have names that a page or a plot could trip over, some very long."""
    long = (
        "the endpoint of the team that serves the model for everybody in the company, with micro-batches of 1,000 rows"
    )
    names = {
        DIRECT: "direct <script>alert(1)</script> & $x^2$",
        MICRO: f"{long} {'and_no_space_to_break_it_' * 4}",
        SINGLE: "_\"quoted\" 'single' {{ 7 * 7 }}",
        JOB: "批处理\x1b作业",
    }
    found = renamed(disagreeing(), names)
    return found.model_copy(update={"name": "<b>natality</b>", "notes": ("<img src=x onerror=alert(2)>",)})


def _batch_run(way: Way, load: float, round: int, rng: random.Random) -> Run:
    per_row, start = {DIRECT: (2.1e-6, 1.9), MICRO: (6.6e-6, 2.0), SINGLE: (1.1e-3, 2.0), JOB: (9.4e-6, 3.1)}[way.name]
    noise = rng.uniform(0.96, 1.05)
    start_s, work_s, end_s = start * noise, load * per_row * rng.uniform(0.95, 1.06) + 0.12, 0.09 * noise
    served = way.kind == "endpoint"
    steps = {"prepare": 0.3 * work_s, "submit": 0.02, "wait": 0.5 * work_s, "join": 0.2 * work_s}
    calls = int(load) if way.single else int(load / 1_000)
    return Run(
        way=way.name, load=load, round=round, begun=f"2026-11-26T22:{round:02d}:00Z",
        elapsed_s=start_s + work_s + end_s, start_s=start_s, work_s=work_s, end_s=end_s,
        steps_s=steps if way.kind == "batch_job" else {},
        rows_read=int(load), rows_written=int(load) - 4, rows_dead_lettered=4,
        pipeline_cpu_s=(start_s + work_s) * 1.3, server_cpu_s=work_s * 0.7 if served else None,
        pipeline_peak_mb=410 + load / 9_000, server_peak_mb=290 + load / 50_000 if served else None,
        requests=calls + 2 if served else None, requests_repeated=2 if served else None,
        bytes_sent=int(load * (152 if way.single else 61)) if served else None,
    )  # fmt: skip


def _stream_run(way: Way, load: float, round: int, rng: random.Random) -> Run:
    waits = 1.0 if way.single else 510.0
    model = {"direct": 0.18, "endpoint": 2.4}[way.kind] * (1 + load / 2_000)
    medians = {
        "lag": 1.6 * rng.uniform(0.9, 1.1),
        "wait": waits * rng.uniform(0.95, 1.05),
        "model": model * rng.uniform(0.9, 1.1),
    }
    medians["total"] = sum(medians.values()) * 1.02
    tail = {"p50": 1.0, "p95": 1.9, "p99": 2.2 * rng.uniform(0.9, 1.2), "max": 3.4}
    messages = int(load * 20)
    served = way.kind == "endpoint"
    calls = messages if way.single else 22
    return Run(
        way=way.name, load=load, round=round, begun=f"2026-11-26T23:{round:02d}:00Z",
        elapsed_s=22.4 + rng.uniform(0, 0.6), start_s=2.1, work_s=20.0 + rng.uniform(0.01, 0.4), end_s=0.1,
        rows_read=messages, rows_written=messages, pipeline_cpu_s=2.4 + messages / 9_000,
        server_cpu_s=messages / 4_000 if served else None, pipeline_peak_mb=430, server_peak_mb=300 if served else None,
        requests=calls if served else None, requests_repeated=0 if served else None,
        bytes_sent=messages * 140 if served else None,
        latency_ms={s: {name: m * factor for name, factor in tail.items()} for s, m in medians.items()},
    )  # fmt: skip


def figures_of(run: Run) -> dict[str, float]:
    """The figures of a run, as cells name them."""
    found = {name: float(value) for name, value in run.model_dump().items() if type(value) in (int, float)}
    found = {name: value for name, value in found.items() if name not in ("load", "round", "exit_code")}
    found["rows_per_second"] = run.rows_read / run.elapsed_s
    found["cpu_s"] = run.pipeline_cpu_s + (run.server_cpu_s or 0)
    found |= {f"steps.{name}": value for name, value in run.steps_s.items()}
    return found | {f"latency.{stage}.{name}": v for stage, all in run.latency_ms.items() for name, v in all.items()}


def _figure(values: Sequence[float]) -> Figure:
    ordered = sorted(values)
    if len(ordered) == 1:
        return Figure(median=ordered[0])
    return Figure(median=ordered[len(ordered) // 2], low=ordered[0], high=ordered[-1], rounds=len(ordered))


def _cell(way: str, load: float, runs: Sequence[Run], left_out: str) -> Cell:
    found = [figures_of(run) for run in runs if run.round and (run.way, run.load) == (way, load)]
    figures = {name: _figure([each[name] for each in found]) for name in (found[0] if found else {})}
    return Cell(way=way, load=load, figures=figures, left_out=left_out or ("" if found else _TOO_SLOW))


def _summed(
    kind: Literal["batch", "stream"],
    name: str,
    ways: tuple[Way, ...],
    loads: tuple[float, ...],
    runs: Sequence[Run],
    figure: str,
    left_out: dict[tuple[str, float], str] = {},  # noqa: B006
) -> Results:
    cells = {
        (w.name, load): _cell(w.name, load, runs, left_out.get((w.name, load), "")) for load in loads for w in ways
    }
    rankings = []
    for load in loads:
        here = [cell for cell in cells.values() if cell.load == load]
        order = sorted((c for c in here if c.figures), key=lambda cell: cell.figures[figure].median)
        best = order[0].figures[figure].median
        places = [
            RankedPlace(way=each.way, place=place, value=(value := each.figures[figure].median), ratio=value / best)
            for place, each in enumerate(order, 1)
        ]
        missing = {cell.way: cell.left_out for cell in here if not cell.figures}
        rankings.append(Ranking(load=load, figure=figure, places=tuple(places), not_ranked=missing))
    parity = [
        Parity(
            way=way.name,
            reference=ways[0].name,
            rows=9_996,
            failed_in_both=4,
            differences=(_difference(9_996, 2.4e-7),),
        )
        for way in ways[1:]
    ]
    parity.insert(0, Parity(way=ways[0].name, reference=ways[0].name, rows=9_996))
    return Results(
        kind=kind, name=name, manifest=_manifest(kind), ways=ways, loads=loads, runs=tuple(runs),
        cells=tuple(cells.values()), parity=tuple(parity), rankings=tuple(rankings),
        notes=("The source was repeated to make the larger sizes.", "Other programs ran on the machine at the time."),
    )  # fmt: skip


def _difference(rows: int, greatest: float, over: int = 0) -> Difference:
    return Difference(
        output="weight_pounds", rows=rows, greatest=greatest, typical=greatest / 8, greatest_relative=greatest / 7,
        over=over, absolute=1e-5, relative=1e-5,
    )  # fmt: skip


def _without(ranking: Ranking, way: str, why: str) -> Ranking:
    places = tuple(
        each.model_copy(update={"place": place})
        for place, each in enumerate((each for each in ranking.places if each.way != way), 1)
    )
    return ranking.model_copy(update={"places": places, "not_ranked": {**ranking.not_ranked, way: why}})


def _manifest(kind: str) -> ComparisonManifest:
    machine = Machine(cpu="AMD EPYC 7B13", cores=2, memory_gb=15.6, system="Linux 6.1, Debian 12")
    return ComparisonManifest(
        begun="2026-11-26T22:00:00Z", ended="2026-11-26T23:14:09Z",
        command=f"beam-tf-predict compare --config configs/compare-{kind}.json --out out/compare-{kind}",
        config=f"configs/compare-{kind}.json", config_hash="5f3c" * 16,
        model="model/trained/v1", model_hash="91ab" * 16,
        source="files data/births-nc-2001.csv, repeated", machine=machine,
        versions={"beam-tf-predict": "1.12.0", "apache-beam": "2.77.0", "tensorflow": "2.21.0", "python": "3.11.7"},
        seconds=4449.0,
    )  # fmt: skip


def _priced(way: str, fixed: float, per_volume: float, loads: Sequence[float], **more: Any) -> CostOfWay:
    volumes = [10**exponent for exponent in range(3, 10)] if loads[0] >= 1_000 else [1, 10, 100, 1_000, 10_000, 100_000]
    volume = loads[-1]
    return CostOfWay(
        way=way, runs={f"{load:.0f}": per_volume * load / 30 for load in loads}, month=fixed + per_volume * volume,
        parts={"workers": per_volume * volume, **({"nodes": fixed} if fixed else {})},
        curve=tuple((float(each), fixed + per_volume * each) for each in volumes), **more,
    )  # fmt: skip


def batch_costs() -> WayCosts:
    """Costs of a month of batch runs."""
    return WayCosts(
        currency="USD", volume=1_000_000, unit="rows a day",
        ways=(
            _priced(DIRECT, 0.4, 2.4e-6, SIZES, fleet=("1 worker n1-standard-2 for 4 minutes a day",)),
            _priced(MICRO, 79.8, 3.1e-6, SIZES, fleet=("1 worker n1-standard-2", "1 node n1-standard-2, all month")),
            _priced(JOB, 6.1, 8e-8, SIZES, fleet=("1 worker n1-standard-2", "a job of 1 node for 9 minutes a day")),
        ),
        break_evens=(BreakEven(volume=2_460_000, below=DIRECT, above=JOB),),
        prices=(
            "dataflow_batch_vcpu_hour: 0.056 USD, of 2023 (cloud.google.com/dataflow/pricing, us-central1)",
            "vertex_batch_n1_standard_2_hour: 0.10925 USD, of 2024 (cloud.google.com/vertex-ai/pricing, us-central1)",
        ),
        unverified=("dataflow_batch_vcpu_hour", "vertex_batch_n1_standard_2_hour"),
        assumptions=("A worker needs 3 minutes to start.", "A month has 30.4 days.", "A processor is as fast there."),
    )  # fmt: skip


def stream_costs() -> WayCosts:
    """Costs of a month of streams."""
    micro = STREAM_WAYS[1].name
    return WayCosts(
        currency="USD", volume=500, unit="messages a second",
        ways=(
            _priced(DIRECT_SINGLE, 61.0, 0.012, RATES, fleet=("1 worker n1-standard-2, all month",)),
            _priced(micro, 58.0, 0.0104, RATES, fleet=("1 worker n1-standard-2, all month",)),
            _priced(MICRO, 160.2, 0.009, RATES, fleet=("1 node n1-standard-2, all month",), missing=("pubsub_gb",)),
        ),
        break_evens=(BreakEven(volume=73_000, below=micro, above=MICRO),),
        prices=("dataflow_streaming_vcpu_hour: 0.069 USD, of 2026-08 (DataflowTemplates)",),
        assumptions=("Workers run all month.",),
    )  # fmt: skip
