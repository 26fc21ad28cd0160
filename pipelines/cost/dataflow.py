"""Computes what a batch job of Dataflow has used, from the metrics of the service, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipelines.cost.prices import Prices

_ORIGIN = "dataflow/v1b3"
_HOUR_S = 3600.0


@dataclass(frozen=True)
class _Resource:
    """Describes what a job uses and is billed for.

    Attributes:
      metric: name of the service's metric.
      price: name of its price.
      unit: how much of the metric is one unit of the price.
      key: its name in --json.
      label: its unit for people.
    """

    metric: str
    price: str
    unit: float
    key: str
    label: str


_RESOURCES = (
    _Resource("TotalVcpuTime", "dataflow_batch_vcpu_hour", _HOUR_S, "vcpu_hours", "vCPU-h"),
    # Megabytes times seconds.
    _Resource("TotalMemoryUsage", "dataflow_batch_memory_gb_hour", _HOUR_S * 1024, "memory_gb_hours", "GB-h of memory"),
    _Resource("TotalPdUsage", "dataflow_disk_gb_hour", _HOUR_S, "disk_gb_hours", "GB-h of disk"),
    # Gigabytes: its own original_name in the service ends with chargeable_gb.
    _Resource("BillableShuffleDataProcessed", "dataflow_shuffle_gb", 1.0, "shuffled_gb", "GB shuffled"),
)
_BY_METRIC = {each.metric: each for each in _RESOURCES}


@dataclass(frozen=True)
class JobCost:
    """Describes what a job has used, and what it costs.

    Attributes:
      used: amounts by the names of their prices.
      amount: the cost; None if a price is missing.
      currency: its currency.
      dates: the dates of the prices.
      missing: the names of prices that are missing.
      own: the names of prices that are of a person's own file.
    """

    used: dict[str, float]
    amount: float | None
    currency: str
    dates: str
    missing: tuple[str, ...] = ()
    own: tuple[str, ...] = ()

    def findings(self) -> dict[str, Any]:
        """Returns the cost for --json."""
        found: dict[str, Any] = {
            each.key: round(self.used[each.price], 6) for each in _RESOURCES if each.price in self.used
        }
        found |= {"currency": self.currency, "prices_of": self.dates}
        found |= {"own_prices": list(self.own)} if self.own else {}
        found["amount"] = None if self.amount is None else round(self.amount, 6)
        return found

    def in_words(self) -> str:
        """Returns the cost on one line."""
        used = ", ".join(f"{amount:,.3f} {each.label}" for each in _RESOURCES if (amount := self.used.get(each.price)))
        if self.amount is None:
            return f"{used}; no price for {', '.join(self.missing)}: add it to the file of --prices"
        of_own = f"; of --prices: {', '.join(self.own)}" if self.own else ""
        return f"{self.amount:,.4f} {self.currency} ({used}; prices of {self.dates}{of_own})"


def cost_of(metrics: Iterable[Any], prices: Prices) -> JobCost | None:
    """Adds up the metrics of a job.

    Args:
      metrics: MetricUpdates of the service.
      prices: the prices.

    Returns:
      The cost; None if the service tells nothing of what the job has used.
    """
    used: dict[str, float] = {}
    for each in metrics:
        name, context = each.name.name, dict(each.name.context)
        if each.name.origin != _ORIGIN or name not in _BY_METRIC or "tentative" in context or "step" in context:
            continue
        resource = _BY_METRIC[name]
        used[resource.price] = _number(each.scalar) / resource.unit
    if not used:
        return None
    amount, missing = prices.of(used)
    names = list(used)
    known = None if missing else amount
    return JobCost(used, known, prices.currency, prices.dates(names), tuple(missing), tuple(prices.own_of(names)))


def _number(scalar: Any) -> float:
    """Returns the number in a metric's value: the client gives a Value of protobuf, or what it holds."""
    return float(getattr(scalar, "number_value", scalar) or 0)
