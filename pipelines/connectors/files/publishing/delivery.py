"""Defines delivery: a service takes over the shards of a run, all at once, in place of names for them.

What is to be delivered is part of the commit record, so a delivery that a killed process has begun is completed by
whoever finds the record. Delivering again what was delivered must change nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pydantic import BaseModel, ConfigDict


class DeliveryRefusedError(RuntimeError):
    """Raised when a service refuses what it is to take over: it has taken nothing, and trying again does not help."""


class DeliveryError(RuntimeError):
    """Raised when a service has not answered for too long: whether it has taken the shards is not known yet."""


class StagedShard(BaseModel):
    """Describes a finished shard in the temporary folder of its run.

    Attributes:
      name: without the folder.
      size: bytes.
      rows: rows in it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int
    rows: int


class DeliveryOrder(BaseModel):
    """Says what is to be delivered, and where to.

    Attributes:
      service: which service, as the registry of connectors names it.
      what: the place in words, such as "table p.d.t".
      fingerprint: equal for runs of the same config over the same input.
      settings: what the service's own code needs to know.
      run: id of the run.
      name: its name, from its config.
      shards: what is delivered.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: str
    what: str
    fingerprint: str
    settings: dict[str, Any]
    run: str
    name: str
    shards: tuple[StagedShard, ...] = ()

    @property
    def rows(self) -> int:
        """Returns how many rows are delivered."""
        return sum(shard.rows for shard in self.shards)


class Delivered(BaseModel):
    """Holds what a manifest says of a delivery.

    Attributes:
      what: the place in words.
      fingerprint: see DeliveryOrder.
      rows: rows that the service has taken over, as it says.
      is_reported: whether the command that asked for it, or a later one, has given the account of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    fingerprint: str
    rows: int
    is_reported: bool = False


class Delivery(ABC):
    """Delivers to one service."""

    @abstractmethod
    def deliver(self, order: DeliveryOrder, folder: str, note: str) -> int:
        """Delivers, or finds that it was delivered; returns how many rows the service has taken over.

        Args:
          order: what to deliver.
          folder: the folder of the shards; ends in a slash.
          note: path of a file that the delivery may keep until it is done.

        Raises:
          DeliveryRefusedError: nothing was delivered, for a reason that stays.
          DeliveryError: the service is away.
        """
