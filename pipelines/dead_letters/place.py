"""Defines the interface of the places that rows and dead letters are written to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pipelines.rows.origin import DeadLetter

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.telemetry.accounting import ShardWritten


class DeadLetterWriter(ABC):
    """Writes the dead letters of one step, from one thread."""

    @abstractmethod
    def begin_bundle(self) -> None:
        """Forgets what a bundle that failed has left."""

    @abstractmethod
    def write(self, dead_letter: DeadLetter) -> None:
        """Takes a dead letter; it is durable when the bundle ends."""

    def handed_on(self) -> Iterable[DeadLetter]:
        """Gives the dead letters that go on in the pipeline and are written nowhere, each once; none by default."""
        return ()

    @abstractmethod
    def end_bundle(self) -> Iterable[ShardWritten]:
        """Makes durable what was taken; gives the receipts of files that are still to be published."""

    @abstractmethod
    def close(self) -> None:
        """Closes files and connections."""


class WritablePlace(ABC):
    """Represents a place that is written to."""

    @abstractmethod
    def check(self) -> None:
        """Checks that it can be written to.

        Raises:
          ConfigError: it is not there, or does not take them.
        """

    def recover(self) -> list[str]:
        """Completes what a killed run left; returns what a person should know of it, one line each."""
        return []

    def written_keys(self, seconds: float) -> Iterator[tuple[float, pa.Array]]:
        """Yields the keys of what was written in the last seconds, where they can be read: (age in seconds, keys).

        Raises:
          ConfigError: they could be read if they were written.
        """
        yield from ()

    @abstractmethod
    def describe(self) -> str:
        """Returns where it is, for the summary."""


class DeadLetterPlace(WritablePlace):
    """Represents a place for dead letters: every step of a flow gets it, and opens it in its worker."""

    @abstractmethod
    def open(self) -> DeadLetterWriter:
        """Makes the writer of one step."""
