"""Searches all machines that could be rented for the cheapest that are enough, one by one."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from pipelines.cost.assumptions import DAYS_A_MONTH, HOURS_A_MONTH, Assumptions
from pipelines.cost.machines import DISK, NODES, WORKERS, MachineType, worker_prices
from pipelines.cost.prices import Prices
from pipelines.cost.ways import Demand

GIVEN = Assumptions()


def hourly(machine: MachineType, mode: str, prices: Prices) -> float:
    vcpu, memory = worker_prices(mode)
    amount = {vcpu: machine.vcpus, memory: machine.memory_gb, DISK: GIVEN.worker_disk_gb}
    return sum(prices.prices[name].amount * count for name, count in amount.items())


def searched(kind: str, way: Demand, volume: float, prices: Prices, within: float, most: int = 400) -> float:
    """The least cost over all machine types and counts, each tried and looked at whether it is enough."""
    given = replace(GIVEN, within_hours=within)
    start = given.worker_start_hours
    batch = kind == "batch"

    def cheapest(machines, counts, enough, cost) -> float:
        every = itertools.product(machines, range(1, counts + 1))
        return min((cost(*each) for each in every if enough(*each)), default=math.inf)

    def lasting(machines, vcpus, gb, a_vcpu, price) -> float:
        def enough(machine, count):
            holds = machine.memory_gb >= gb * (machine.vcpus if a_vcpu else 1)
            return holds and count * machine.vcpus >= vcpus * (1 - 1e-9)

        return cheapest(machines, most, enough, lambda m, n: n * price(m) * HOURS_A_MONTH)

    def passing(machines, work, gb, a_vcpu, begin, hours, price) -> float:
        def enough(machine, count):
            holds = machine.memory_gb >= gb * (machine.vcpus if a_vcpu else 1)
            return holds and work / (count * machine.vcpus) <= hours * (1 + 1e-9)

        return cheapest(machines, most, enough, lambda m, n: n * price(m) * (begin + work / (n * m.vcpus)))

    def node(use):
        return lambda machine: prices.prices[machine.node_price(use)].amount

    if not batch:
        busy = volume * given.slower / given.utilisation
        workers = lasting(
            WORKERS, busy * way.pipeline.per_row, way.pipeline_gb, True, lambda m: hourly(m, "streaming", prices)
        )
        if way.kind == "direct":
            return workers
        assert way.server is not None
        return workers + lasting(NODES, busy * way.server.per_row, way.server_gb, False, node("online"))
    work = given.vcpu_hours(way.pipeline.of(volume))
    rate = lambda m: hourly(m, "batch", prices)  # noqa: E731
    if way.kind == "direct":
        return DAYS_A_MONTH * passing(WORKERS, work, way.pipeline_gb, True, start, within - start, rate)
    assert way.server is not None
    served = given.vcpu_hours(way.server.of(volume))
    if way.kind == "endpoint":
        workers = DAYS_A_MONTH * passing(WORKERS, work, way.pipeline_gb, True, start, within - start, rate)
        return workers + lasting(NODES, served / (within - start), way.server_gb, False, node("online"))
    half = (within - 2 * start - given.job_startup_hours) / 2
    job = passing(NODES, served, way.server_gb, False, given.job_startup_hours, half, node("batch"))
    return DAYS_A_MONTH * (job + passing(WORKERS, work, way.pipeline_gb, True, 2 * start, half, rate))
