"""Where a stream's rows and dead letters go: what the kinds of places have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pipelines.rows.origin import DeadLetter

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.telemetry.accounting import ShardWritten


class DeadLetterWriter(ABC):
    """The dead letters of one step, written by one thread."""

    @abstractmethod
    def begin_bundle(self) -> None:
        """Forgets what a bundle that failed has left."""

    @abstractmethod
    def write(self, letter: DeadLetter) -> None:
        """Takes a letter; it is durable when the bundle ends."""

    @abstractmethod
    def end_bundle(self) -> Iterable[ShardWritten]:
        """Makes durable what was taken; gives the receipts of files that are still to be published."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of what is held."""


class Place(ABC):
    """Where a stream writes to."""

    @abstractmethod
    def check(self) -> None:
        """Whether it can be written to.

        Raises:
          ConfigError: it is not there, or does not take them.
        """

    def recover(self) -> list[str]:
        """Completes what a killed run left; gives what a person should know of it, one line each."""
        return []

    def written_keys(self, seconds: float) -> Iterator[tuple[float, pa.Array]]:
        """The keys of what was written in the last seconds, where they can be read: (age in seconds, keys).

        Raises:
          ConfigError: they could be read if they were written.
        """
        yield from ()

    @abstractmethod
    def describe(self) -> str:
        """Where it is, as the summary says it."""


class DeadLetterPlace(Place):
    """Where the dead letters of a stream go; it travels to the workers."""

    @abstractmethod
    def open(self) -> DeadLetterWriter:
        """A box for one step."""
