"""Estimates what a batch prediction job costs, and computes what it has cost."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.config.batch_job import BatchJobConfig
from pipelines.cost.prices import Prices


@dataclass(frozen=True)
class JobCostEstimate:
    """Holds hours of nodes and their price.

    Attributes:
      node_hours: hours of all nodes together.
      price: name of the price of a node's hour.
      cost: in the currency of the prices; None if there is no such price.
      currency: of the prices.
      dates: dates of the price in words.
      is_own: whether the price is of a person's own file.
    """

    node_hours: float
    price: str
    cost: float | None
    currency: str
    dates: str
    is_own: bool = False

    def in_words(self) -> str:
        """Returns the cost for people, such as `0.17 USD (1.53 node hours, price of 2023)`."""
        hours = f"{self.node_hours:,.2f} node hours"
        if self.cost is None:
            return f"{hours}; the price file has no {self.price}"
        return f"{self.cost:,.2f} {self.currency} ({hours}, price of {self.dates}{', of --prices' * self.is_own})"


def price_name(config: BatchJobConfig) -> str:
    """Returns the name of the price of a node's hour in a file of prices.

    >>> price_name(BatchJobConfig(type="batch_job", resource="r", folder="f", signature_from="m"))
    'vertex_batch_n1_standard_2_hour'
    """
    if config.service == "ai_platform":
        return "ai_platform_batch_node_hour"
    accelerator = f"_{config.accelerator_count}_{config.accelerator_type.lower()}" if config.accelerator_type else ""
    return f"vertex_batch_{config.machine_type.replace('-', '_')}{accelerator}_hour"


def estimated(config: BatchJobConfig, rows: int, prices: Prices) -> JobCostEstimate:
    """Returns what a job over so many rows is expected to cost: what starting is billed with, and the rows' time."""
    nodes = config.starting_replicas if config.service == "vertex" else 1
    return priced(config, nodes * config.startup_hours + rows / config.rows_per_node_hour, prices)


def priced(config: BatchJobConfig, node_hours: float, prices: Prices) -> JobCostEstimate:
    """Returns what so many hours of nodes cost."""
    name = price_name(config)
    cost, missing = prices.of({name: node_hours})
    is_known = not missing and name in prices.prices
    own, dates = bool(prices.own_of([name])), prices.dates([name])
    return JobCostEstimate(node_hours, name, cost if is_known else None, prices.currency, dates, own)


def over(config: BatchJobConfig, estimate: JobCostEstimate) -> list[str]:
    """Lists why a job may not be submitted for its costs, one line or none."""
    if config.max_cost is None:
        return []
    if estimate.cost is None:
        return [
            f"model.max_cost: whether the job costs more is not known: the price file has no {estimate.price}; give a "
            "file that has it with --prices, or leave max_cost out"
        ]
    if estimate.cost <= config.max_cost:
        return []
    return [
        f"model.max_cost: the job is estimated to cost {estimate.in_words()}, and may cost {config.max_cost:g}; "
        "raise max_cost, take fewer rows, or correct rows_per_node_hour"
    ]
