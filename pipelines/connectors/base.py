"""What a flow asks of a service: to be read, to be written to, to take dead letters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from typing_extensions import Self

from pipelines.dead_letters.place import WritablePlace

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines.config.run import Batching
    from pipelines.connectors.files.publishing.delivery import DeliveryOrder
    from pipelines.connectors.writing.row_writer import RowWriter
    from pipelines.formats.base import Writer
    from pipelines.plan import OutputColumn


class SourceConnector(ABC):
    """Reads a stream. Made of its config, it has looked at the source, and raises ConfigError if that is not there."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def read(self, batching: Batching, attributes: bool = False) -> beam.PTransform:
        """Makes the transform that gives Messages.

        Args:
          batching: what a micro-batch is.
          attributes: what comes with a message beside its payload is wanted.
        """

    def finish(self, all_is_done: bool = False) -> int:
        """Ends reading; returns how many messages could not be acknowledged.

        Args:
          all_is_done: so is all that was handed out, also what the runner has not told of.
        """
        return 0

    def close(self) -> None:
        """Ends reading, and removes what was made for it."""
        self.finish()

    def backlog(self) -> int | None:
        """Returns how many messages wait to be read; None if the source does not know. Connects to nothing."""
        return None


class BatchSinkConnector(WritablePlace):
    """Takes over the files of a batch run, all at once. It is made of a plan and its output's config."""

    @abstractmethod
    def columns(self) -> tuple[OutputColumn, ...]:
        """Returns the columns to write, with the types that the service takes."""

    @abstractmethod
    def writer(self) -> type[Writer]:
        """Returns what writes the files."""

    @abstractmethod
    def order(self) -> DeliveryOrder:
        """Returns what is to be delivered, without the shards yet."""


class SinkConnector(WritablePlace):
    """Writes the rows of a stream. It is made of a plan and its output's config."""

    @abstractmethod
    def writer(self) -> RowWriter | None:
        """Makes what writes the rows in a worker; None if they are only shown on the console."""
