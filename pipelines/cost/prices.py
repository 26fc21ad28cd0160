"""Reads prices from a JSON file in which each has its date and source."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model import packaged
from pipelines import storage
from pipelines.config.errors import ConfigError

PACKAGED = "configs/prices.json"
_MOST_BYTES = 1 << 20


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


class Prices(BaseModel):
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


def load(path: str | None = None) -> Prices:
    """Reads a file of prices, the packaged one by default.

    Raises:
      ConfigError: it is not there, or is not a file of prices; each mistake with its place.
    """
    where = path or packaged.located(PACKAGED)
    try:
        content = storage.read_small(where, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError([f"--prices {where}: cannot be read: {error}"]) from None
    if content is None:
        raise ConfigError([f"--prices {where}: there is no such file"])
    try:
        return Prices.model_validate_json(content)
    except ValidationError as error:
        raise ConfigError(
            [
                f"--prices {where}: {'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}"
                for each in error.errors(include_input=False, include_url=False)
            ]
        ) from None
