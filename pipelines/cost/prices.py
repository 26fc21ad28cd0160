"""Reads prices from JSON files in which each has its date and source: the packaged one, and a person's own over it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model import packaged
from pipelines import storage
from pipelines.config.errors import ConfigError
from pipelines.config.explain import near

PACKAGED = "configs/prices.json"
_MOST_BYTES = 1 << 20
_MOST_PROBLEMS = 20
_FORM = '{"prices": {"NAME": {"amount": 0.05, "date": "2026-11", "source": "..."}}}, with names of configs/prices.json'
_OF_NODE = re.compile(
    r"vertex_batch_[a-z]\d[a-z]?_(standard|highmem|highcpu|highgpu|megagpu|ultragpu|ultramem|megamem)_\d+g?"
    r"(_\d+_(nvidia|tpu)_[a-z0-9_]+)?_hour"
)
"""Names of prices beside the packaged ones: a batch prediction job may have nodes of any machine type."""


class Price(BaseModel):
    """Describes one price.

    Attributes:
      amount: the price, in the file's currency.
      date: when it was found, such as 2026-11 or 2026-11-26.
      source: where it was found.
      verified: whether somebody has compared it with the source since.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
    date: Annotated[str, Field(pattern=r"^\d{4}(-\d{2}){0,2}$")]
    source: Annotated[str, Field(min_length=1)]
    verified: bool = False


class PriceFile(BaseModel):
    """Holds the prices of a file by their names, such as `dataflow_batch_vcpu_hour`.

    Attributes:
      currency: the currency of all amounts.
      note: what a person should know.
      prices: the prices.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"
    note: str = ""
    prices: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Price]


class Prices(PriceFile):
    """Holds the prices that costs are computed with.

    Attributes:
      own: names of those that are of a person's own file; empty if all are the packaged ones.
      alone: why no packaged price was taken beside these; empty if they were.
    """

    own: Annotated[frozenset[str], Field(exclude=True)] = frozenset()
    alone: Annotated[str, Field(exclude=True)] = ""

    def of(self, amounts: dict[str, float]) -> tuple[float, list[str]]:
        """Returns what amounts cost, by the names of their prices, and the names that have no price."""
        missing = [name for name, amount in amounts.items() if amount and name not in self.prices]
        return sum(
            self.prices[name].amount * amount for name, amount in amounts.items() if name in self.prices
        ), missing

    def dates(self, names: list[str]) -> str:
        """Returns the dates of prices in words, such as "2023" or "2023 to 2026-11"."""
        found = sorted({self.prices[name].date for name in names if name in self.prices})
        return " to ".join(dict.fromkeys([found[0], found[-1]])) if found else ""

    def own_of(self, names: Iterable[str]) -> list[str]:
        """Returns those of these names whose prices are of a person's own file."""
        return [name for name in names if name in self.own]

    def origin(self, names: Collection[str]) -> str:
        """Returns which of these prices are a person's own, as a sentence; empty if no file was given."""
        if not self.own:
            return ""
        own = self.own_of(names)
        if own and len(own) == sum(name in self.prices for name in names):
            return f"all prices are those of your file (--prices), in {self.currency}{self.alone}"
        if not own:
            return (
                f"the prices that are needed are the packaged ones of {PACKAGED}: your file (--prices) has none of them"
            )
        count = "1 price is" if len(own) == 1 else f"{len(own)} prices are"
        return f"{count} of your file (--prices): {', '.join(own)}; the others are the packaged ones of {PACKAGED}"


def load(path: str | None = None) -> Prices:
    """Reads the packaged prices, and over them, name by name, those of a person's own file.

    A file in another currency is taken alone: amounts of two currencies cannot be added.

    Args:
      path: of the person's own file; None for the packaged prices.

    Raises:
      ConfigError: it is not there, is not a file of prices, or has a name that no program knows; each mistake with its
        place.
    """
    packaged_prices = _read(packaged.located(PACKAGED))
    if path is None:
        return packaged_prices
    own = _read(path)
    if problems := [
        f"--prices {path}: prices.{name}: no price has this name; {PACKAGED} has all names"
        + near(name, list(packaged_prices.prices))
        for name in own.prices
        if name not in packaged_prices.prices and not _OF_NODE.fullmatch(name)
    ]:
        more = len(problems) - _MOST_PROBLEMS
        raise ConfigError([*problems[:_MOST_PROBLEMS], *([f"and {more:,} more such names"] if more > 0 else [])])
    if own.currency == packaged_prices.currency:
        return own.model_copy(update={"prices": packaged_prices.prices | own.prices, "own": frozenset(own.prices)})
    alone = f"; the packaged ones are in {packaged_prices.currency}"
    return own.model_copy(update={"own": frozenset(own.prices), "alone": alone})


def _read(where: str) -> Prices:
    try:
        content = storage.read_small(where, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError([f"--prices {where}: cannot be read: {error}"]) from None
    if content is None:
        raise ConfigError([f"--prices {where}: there is no such file"])
    try:
        return Prices(**dict(PriceFile.model_validate_json(content)))
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        problems = [
            f"--prices {where}: {'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in found
        ]
        if any(each["loc"] == ("prices",) for each in found):
            problems = [f"--prices {where}: no prices are in it; give {_FORM}"]
        raise ConfigError(problems) from None
