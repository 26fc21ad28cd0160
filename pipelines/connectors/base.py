"""TODO pipelines.connectors.base."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines.config.run import Batching
    from pipelines.dead_letters.place import DeadLetterPlace

from typing import TYPE_CHECKING

from pipelines.dead_letters.place import Place

if TYPE_CHECKING:
    from pipelines.connectors.writing.rows import WriteRows


class Opened(ABC):
    """A source that can be read."""

    @abstractmethod
    def read(self, batching: Batching, attributes: bool = False) -> beam.PTransform:
        """The transform that gives Messages.

        Args:
          batching: what a micro-batch is.
          attributes: what comes with a message beside its payload is wanted.
        """

    def finish(self, all_is_done: bool = False) -> int:
        """Ends reading; gives how many messages could not be acknowledged.

        Args:
          all_is_done: so is all that was handed out, also what the runner has not told of.
        """
        return 0

    def backlog(self) -> int | None:
        """How many messages wait to be read; None if the source does not know. Asks nobody."""
        return None


class Destination(Place):
    """Where the rows of a stream go."""

    @abstractmethod
    def sink(self, dead_letters: DeadLetterPlace) -> WriteRows | None:
        """What writes the rows; None if nothing does but the console."""
