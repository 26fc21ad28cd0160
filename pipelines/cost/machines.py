"""Lists the machine types of workers and of the nodes of model servers, and what an hour of each costs."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.cost.assumptions import Assumptions
from pipelines.cost.prices import Prices


@dataclass(frozen=True)
class MachineType:
    """Describes a machine type.

    Attributes:
      name: of the type.
      vcpus: how many vCPUs it has.
      memory_gb: how much memory it has.
    """

    name: str
    vcpus: int
    memory_gb: float

    def node_price(self, use: str) -> str:
        """Returns the name of the price of an hour of a node of Vertex AI; its use is `batch` or `online`."""
        return f"vertex_{use}_{self.name.replace('-', '_')}_hour"


WORKERS = (
    MachineType("n1-standard-1", 1, 3.75),
    MachineType("n1-standard-2", 2, 7.5),
    MachineType("n1-standard-4", 4, 15.0),
    MachineType("n1-standard-8", 8, 30.0),
    MachineType("n1-highmem-2", 2, 13.0),
    MachineType("n1-highmem-4", 4, 26.0),
    MachineType("n1-highmem-8", 8, 52.0),
)
"""What workers of Dataflow may be; their prices are those of vCPUs, memory and disk."""

NODES = (
    MachineType("n1-standard-2", 2, 7.5),
    MachineType("n1-standard-4", 4, 15.0),
    MachineType("n1-standard-8", 8, 30.0),
)
"""What nodes of endpoints and of batch prediction jobs may be; each has a price of its own."""

DISK = "dataflow_disk_gb_hour"
PUBSUB, TABLE, STREAMED = "pubsub_throughput_gb", "bigquery_storage_write_gb", "dataflow_streaming_data_gb"


@dataclass(frozen=True)
class Offer:
    """Says what an hour of a machine of a type costs.

    Attributes:
      machine: the type.
      hourly: cost of an hour.
    """

    machine: MachineType
    hourly: float


@dataclass(frozen=True)
class Offers:
    """Holds the machine types that can be paid for.

    Attributes:
      known: those whose prices are known.
      missing: names of prices that are missing for the others.
    """

    known: tuple[Offer, ...]
    missing: tuple[str, ...]


class Tariff:
    """Looks up once what all machines of a file of prices cost.

    Args:
      prices: the prices.
      given: what is taken for granted.

    Attributes:
      prices: the prices.
      given: what is taken for granted.
      batch_workers: workers of batch runs.
      stream_workers: workers of streams.
      online_nodes: nodes of an endpoint.
      job_nodes: nodes of a batch prediction job.
    """

    def __init__(self, prices: Prices, given: Assumptions) -> None:
        self.prices = prices
        self.given = given
        self.batch_workers = self._workers("batch")
        self.stream_workers = self._workers("streaming")
        self.online_nodes = self._nodes("online")
        self.job_nodes = self._nodes("batch")

    def _workers(self, mode: str) -> Offers:
        vcpu, memory = worker_prices(mode)
        return self._offers(
            [(each, {vcpu: each.vcpus, memory: each.memory_gb, DISK: self.given.worker_disk_gb}) for each in WORKERS]
        )

    def _nodes(self, use: str) -> Offers:
        return self._offers([(each, {each.node_price(use): 1.0}) for each in NODES])

    def _offers(self, wanted: list[tuple[MachineType, dict[str, float]]]) -> Offers:
        known, lacking = [], dict[str, None]()
        for machine, amounts in wanted:
            hourly, missing = self.prices.of(amounts)
            if missing:
                lacking |= dict.fromkeys(missing)
            else:
                known.append(Offer(machine, hourly))
        return Offers(tuple(known), tuple(lacking))


def worker_prices(mode: str) -> tuple[str, str]:
    """Returns the names of the prices of a worker's vCPU and of its memory; the mode is `batch` or `streaming`."""
    return f"dataflow_{mode}_vcpu_hour", f"dataflow_{mode}_memory_gb_hour"
