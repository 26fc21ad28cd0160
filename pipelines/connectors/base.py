"""Defines what a flow needs of a service: to be read, to be written to, to take dead letters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from typing_extensions import Self

from pipelines.dead_letters.place import WritablePlace

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines.config.run import Batching
    from pipelines.connectors.files.publishing.delivery import DeliveryOrder
    from pipelines.connectors.writing.row_writer import RowWriter
    from pipelines.dead_letters.limit import DeadLetterLimit
    from pipelines.dead_letters.place import DeadLetterPlace
    from pipelines.formats.base import Writer
    from pipelines.plan import Extent, OutputColumn, Plan
    from pipelines.rows.origin import Block, RejectedRow


@dataclass(frozen=True)
class SourceContents:
    """Describes what a source with an end holds, as it says itself.

    Attributes:
      schema: its columns.
      extent: how much it is.
      notes: what a person should know, one line each.
    """

    schema: pa.Schema
    extent: Extent
    notes: list[str]


class BoundedSourceConnector(ABC):
    """Reads a source with an end, in a batch run. Made of its config, it connects to nothing until it is asked."""

    def look_at(self) -> SourceContents | None:
        """Looks at the source before a run; None where the planner looks at its files.

        Raises:
          ConfigError: it is not there, or cannot be read.
        """
        return None

    @abstractmethod
    def read(self, plan: Plan, dead_letters: DeadLetterPlace, limit: DeadLetterLimit) -> beam.PTransform:
        """Makes the transform that gives (Origin, record batch), and receipts.

        Args:
          plan: of the run; its `read` says which columns.
          dead_letters: where rows go that cannot be decoded.
          limit: how many dead letters there may be.
        """

    @abstractmethod
    def sample(self, plan: Plan, rows: int) -> Iterator[tuple[str, Block | RejectedRow]]:
        """Yields the first rows as a run would read them, about `rows`, each with the file or table they are from."""


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
    """Takes over the files of a batch run, all at once. It is made of a plan and its output's config; that of a replay
    adds its rows to those that are there.
    """

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
