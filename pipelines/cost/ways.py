"""Computes what a way to call the model costs in a month: as a batch run each day, or as a stream that never ends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pipelines.cost.assumptions import DAYS_A_MONTH, HOURS_A_MONTH
from pipelines.cost.fits import LinearFit
from pipelines.cost.fleets import FleetChoice, MemoryNeed, lasting, passing
from pipelines.cost.machines import PUBSUB, STREAMED, TABLE, Tariff

_GB = 1 << 30
_SERVER_UNKNOWN = "what its server used was not measured: it was on another machine"


@dataclass(frozen=True)
class Demand:
    """Says what a way takes on the machine on which it was measured.

    Attributes:
      kind: where the model runs.
      pipeline: seconds of a core that the pipeline takes.
      server: seconds of a core that the model's server takes; None if nobody has measured it.
      pipeline_gb: memory of the pipeline.
      server_gb: memory of the server.
    """

    kind: Literal["direct", "endpoint", "batch_job"]
    pipeline: LinearFit
    server: LinearFit | None = None
    pipeline_gb: float = 0.0
    server_gb: float = 0.0

    def times(self, factor: float) -> Demand:
        """Returns the demand of a way that takes so many times as long."""
        return replace(
            self, pipeline=self.pipeline.times(factor), server=self.server.times(factor) if self.server else None
        )


@dataclass(frozen=True)
class Bill:
    """Says what something costs.

    Attributes:
      parts: amounts by name: workers, nodes, job, messages, table, streamed.
      fleet: machines in words.
      missing: names of prices that are missing; what they are for is left out, or there may be something cheaper.
      problem: why there is no cost; empty if there is.
      hours: that a batch run takes, by this estimate.
    """

    parts: dict[str, float] = field(default_factory=dict)
    fleet: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    problem: str = ""
    hours: float = 0.0

    @property
    def total(self) -> float | None:
        """Returns the sum; None if it is not known."""
        return None if self.problem else sum(self.parts.values())


@dataclass(frozen=True)
class _BatchFleets:
    """What works in one batch run; nodes are those of an endpoint or of a job, which serve so many vCPU-hours."""

    workers: FleetChoice
    nodes: FleetChoice | None = None
    served: float = 0.0

    @property
    def choices(self) -> tuple[FleetChoice, ...]:
        return (self.workers, self.nodes) if self.nodes else (self.workers,)


def batch_month(demand: Demand, rows: float, tariff: Tariff) -> Bill:
    """Returns what a month costs with one batch run a day.

    Args:
      demand: what the way takes.
      rows: of each run; without rows there is no run, but an endpoint's nodes stay.
      tariff: what machines cost.
    """
    if (found := _batch_fleets(demand, rows, tariff)) is None:
        return Bill(problem=_SERVER_UNKNOWN)
    if bill := _without_cost(found.choices):
        return bill
    workers, nodes = found.workers.fleet, found.nodes.fleet if found.nodes else None
    assert workers is not None
    runs = DAYS_A_MONTH if rows else 0.0
    parts = {"workers": runs * workers.cost}
    words = [f"{workers.of('worker')}, {in_words(workers.hours)} a run"] if rows else []
    if demand.kind == "endpoint" and nodes:
        parts["nodes"] = nodes.cost
        words.append(f"{nodes.of('node')}, all month")
    elif nodes:
        parts["job"] = runs * nodes.cost
        words += [f"{nodes.of('node')}, {in_words(nodes.hours)} a run"] if rows else []
    missing = tuple(dict.fromkeys(name for choice in found.choices for name in choice.missing))
    return Bill(parts, tuple(words), missing, hours=_run_hours(demand, found, tariff))


def batch_run(demand: Demand, rows: float, tariff: Tariff) -> Bill:
    """Returns what one batch run costs; an endpoint's nodes are counted while the run lasts."""
    month = batch_month(demand, rows, tariff)
    if month.problem or not rows:
        return month
    parts = {name: amount / DAYS_A_MONTH for name, amount in month.parts.items() if name != "nodes"}
    if "nodes" in month.parts:
        parts["nodes"] = month.parts["nodes"] / HOURS_A_MONTH * month.hours
    return replace(month, parts=parts)


def stream_month(demand: Demand, rate: float, tariff: Tariff) -> Bill:
    """Returns what a month of a stream costs.

    Args:
      demand: what the way takes; only what it takes for each message counts, as a stream starts once.
      rate: messages a second; without any, the machines stay.
      tariff: what machines cost.
    """
    given = tariff.given
    if demand.kind == "batch_job":
        return Bill(problem="a batch prediction job cannot predict a stream")
    if demand.kind == "endpoint" and demand.server is None:
        return Bill(problem=_SERVER_UNKNOWN)
    busy = rate * given.slower / given.utilisation
    choices = [lasting(busy * demand.pipeline.per_row, MemoryNeed(demand.pipeline_gb), tariff.stream_workers)]
    if demand.kind == "endpoint" and demand.server:
        memory = MemoryNeed(demand.server_gb, a_vcpu=False)
        choices.append(lasting(busy * demand.server.per_row, memory, tariff.online_nodes, given.least_nodes))
    if bill := _without_cost(choices):
        return bill
    parts, words, missing = dict[str, float](), list[str](), [name for each in choices for name in each.missing]
    for name, choice in zip(("workers", "nodes"), choices, strict=False):
        assert choice.fleet is not None
        parts[name] = choice.fleet.cost
        words.append(f"{choice.fleet.of(name.removesuffix('s'))}, all month")
    gb = rate * 3600 * HOURS_A_MONTH / _GB
    # What is published is delivered too, and both are paid for.
    amounts = {
        "messages": (PUBSUB, 2 * gb * given.message_bytes),
        "streamed": (STREAMED, gb * given.message_bytes),
        "table": (TABLE, gb * given.row_bytes),
    }
    for part, (price, amount) in amounts.items():
        cost, lacking = tariff.prices.of({price: amount})
        missing += lacking
        if not lacking:
            parts[part] = cost
    return Bill(parts, tuple(words), tuple(dict.fromkeys(missing)))


def stream_hour(demand: Demand, rate: float, tariff: Tariff) -> Bill:
    """Returns what an hour of a stream costs."""
    month = stream_month(demand, rate, tariff)
    return replace(month, parts={name: amount / HOURS_A_MONTH for name, amount in month.parts.items()})


def _batch_fleets(demand: Demand, rows: float, tariff: Tariff) -> _BatchFleets | None:
    """The machines of a batch run; None if nobody knows what its server takes."""
    given = tariff.given
    start, within = given.worker_start_hours, given.within_hours
    work = given.vcpu_hours(demand.pipeline.of(rows)) if rows else 0.0
    memory = MemoryNeed(demand.pipeline_gb)
    if demand.kind == "direct":
        return _BatchFleets(passing(work, start, within - start, memory, tariff.batch_workers))
    if demand.server is None:
        return None
    served = given.vcpu_hours(demand.server.of(rows)) if rows else 0.0
    server_memory = MemoryNeed(demand.server_gb, a_vcpu=False)
    if demand.kind == "endpoint":
        workers = passing(work, start, within - start, memory, tariff.batch_workers)
        if workers.problem:
            return _BatchFleets(workers)
        peak = served / (within - start)
        return _BatchFleets(workers, lasting(peak, server_memory, tariff.online_nodes, given.least_nodes), served)
    half = (within - 2 * start - given.job_startup_hours) / 2
    return _BatchFleets(
        passing(work, 2 * start, half, memory, tariff.batch_workers),
        passing(served, given.job_startup_hours, half, server_memory, tariff.job_nodes, given.job_least_nodes),
        served,
    )


def _run_hours(demand: Demand, found: _BatchFleets, tariff: Tariff) -> float:
    """How long a run takes: its parts one after the other, but for an endpoint, which works while workers do."""
    workers, nodes = found.workers.fleet, found.nodes.fleet if found.nodes else None
    assert workers is not None
    if nodes is None:
        return workers.hours
    if demand.kind == "batch_job":
        return workers.hours + nodes.hours
    return max(workers.hours, tariff.given.worker_start_hours + found.served / (nodes.count * nodes.machine.vcpus))


def _without_cost(choices: tuple[FleetChoice, ...] | list[FleetChoice]) -> Bill | None:
    """The bill of what cannot be had, or whose prices are missing; None if there are machines for all."""
    if problems := [choice.problem for choice in choices if choice.problem]:
        return Bill(problem=problems[0])
    if missing := dict.fromkeys(name for choice in choices if not choice.fleet for name in choice.missing):
        return Bill(missing=tuple(missing), problem=f"prices are missing: {', '.join(missing)}")
    return None


def in_words(hours: float) -> str:
    """Returns hours in words.

    >>> in_words(0.23), in_words(2.5)
    ('14 min', '2.5 h')
    """
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:,.1f} h"
