"""Defines a place that shards are published to, and locks it."""

from __future__ import annotations

from dataclasses import dataclass

from inference.stores.errors import StoreError
from pipelines.config.errors import ConfigError
from pipelines.connectors.files.publishing import lock
from pipelines.connectors.files.publishing.lock import Holder, InUseError, Lock


@dataclass(frozen=True)
class Place:
    """Tells where shards go.

    Attributes:
      where: its path in the config, for messages.
      prefix: of the shards.
      extension: of the shards of this run.
    """

    where: str
    prefix: str
    extension: str


def lock_place(place: Place, holder: Holder) -> Lock:
    """Locks a place for a run. Raises ConfigError if another run holds it."""
    try:
        return lock.acquire(place.prefix, holder)
    except InUseError as error:
        raise ConfigError(
            [f"{place.where}: {place.prefix} is in use by {error}; wait until it has ended, or choose another path"]
        ) from None
    except StoreError as error:
        raise ConfigError([f"{place.where}: {error}"]) from None
    except OSError as error:
        raise ConfigError([f"{place.where}: {place.prefix} cannot be locked: {error}"]) from None
