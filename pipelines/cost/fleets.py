"""Chooses how many machines of which type do a piece of work for the least money."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipelines.cost.assumptions import HOURS_A_MONTH
from pipelines.cost.machines import MachineType, Offer, Offers

_ROUNDING = 1 - 1e-12
"""So that 3.0000000000000004 machines are three."""


@dataclass(frozen=True)
class MemoryNeed:
    """Says how much memory machines need.

    Attributes:
      gb: that each process needs.
      a_vcpu: whether there is a process for each vCPU, rather than one for each machine.
    """

    gb: float
    a_vcpu: bool = True

    @property
    def holder(self) -> str:
        """Returns what needs it, in words."""
        return "vCPU" if self.a_vcpu else "server"

    def of(self, machine: MachineType) -> float:
        """Returns what a machine of a type needs."""
        return self.gb * (machine.vcpus if self.a_vcpu else 1)


@dataclass(frozen=True)
class Fleet:
    """Says how many machines of which type there are.

    Attributes:
      machine: the type.
      count: how many.
      hours: how long each of them is paid for.
      hourly: cost of an hour of one.
      work_hours: how long each of them works.
    """

    machine: MachineType
    count: int
    hours: float
    hourly: float
    work_hours: float = 0.0

    @property
    def cost(self) -> float:
        """Returns what all machines cost in their hours."""
        return self.count * self.hours * self.hourly

    def of(self, what: str) -> str:
        """Returns count, type and what the machines are, such as `2 x n1-standard-4 workers`.

        Args:
          what: such as `worker`, of one.
        """
        return f"{self.count:,} x {self.machine.name} {what}{'' if self.count == 1 else 's'}"


@dataclass(frozen=True)
class FleetChoice:
    """Holds the cheapest fleet.

    Attributes:
      fleet: it; None if there is none.
      missing: names of prices that are missing: there may be a cheaper one.
      problem: why there is none; empty if there is, or if prices are missing.
    """

    fleet: Fleet | None
    missing: tuple[str, ...] = ()
    problem: str = ""


def machines_needed(work: float, each: float, least: int = 1) -> int:
    """Returns how many machines do a work of which each does a part.

    >>> machines_needed(2.1, 0.7), machines_needed(0.0, 1.0), machines_needed(2.2, 0.7)
    (3, 1, 4)
    """
    return max(least, math.ceil(work / each * _ROUNDING))


def passing(
    work: float, start: float, within: float, memory: MemoryNeed, offers: Offers, least: int = 1
) -> FleetChoice:
    """Chooses machines that are started for a work and stopped after it.

    A further machine is a further start to pay for, so the least number of each type that ends in time is its cheapest.

    Args:
      work: hours of vCPUs, of all machines together.
      start: hours that each machine is paid for before it works.
      within: hours in which they have to end, without their start.
      memory: what is needed of it.
      offers: what there is.
      least: how many machines there are at least.
    """
    if within <= 0:
        return FleetChoice(None, offers.missing, "starting alone takes as long as a run may take, or longer")

    def fleets() -> Iterator[Fleet]:
        for each in _with_memory(offers, memory):
            vcpus = each.machine.vcpus
            count = machines_needed(work, vcpus * within, least)
            busy = work / (vcpus * count)
            yield Fleet(each.machine, count, start + busy, each.hourly, busy)

    return _cheapest(fleets(), offers, memory)


def lasting(vcpus: float, memory: MemoryNeed, offers: Offers, least: int = 1) -> FleetChoice:
    """Chooses machines that run all month.

    Args:
      vcpus: how many have to be busy at the peak.
      memory: what is needed of it.
      offers: what there is.
      least: how many machines there are at least.
    """
    fleets = (
        Fleet(each.machine, machines_needed(vcpus, each.machine.vcpus, least), HOURS_A_MONTH, each.hourly)
        for each in _with_memory(offers, memory)
    )
    return _cheapest(fleets, offers, memory)


def _with_memory(offers: Offers, memory: MemoryNeed) -> list[Offer]:
    return [each for each in offers.known if each.machine.memory_gb >= memory.of(each.machine)]


def _cheapest(fleets: Iterable[Fleet], offers: Offers, memory: MemoryNeed) -> FleetChoice:
    """The first of the cheapest; why there is none."""
    best = min(fleets, key=lambda fleet: fleet.cost, default=None)
    problem = f"no machine type has {memory.gb:.1f} GB of memory for each {memory.holder}"
    return FleetChoice(best, offers.missing, "" if best or not offers.known else problem)
