"""Defines the interface of what writes rows: into files, or by the client of a service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import pyarrow as pa

from pipelines.connectors.writing.columns import keys_of
from pipelines.formats.output_values import to_output
from pipelines.plan import OutputColumn
from pipelines.rows.origin import Origin, Positions
from pipelines.telemetry.accounting import ShardWritten

Answers = Callable[[], dict[int, str]]
"""Waits until the rows of one write are durable or refused; returns the reason for each refused row by its index."""


class RowRefusedError(ValueError):
    """Raised when rows can never be written because at least one of them is at fault."""


@dataclass(frozen=True)
class OutputRows:
    """Holds rows to write, each as the output wants it and as it came.

    Attributes:
      encoded: the output's columns, of the output's types.
      batch: the same rows with all their columns, as the model step gave them.
      origin: the place that the rows were read from.
      rows: the number of each row in the origin.
      key_column: the source column that identifies a row, if there is one.
    """

    encoded: pa.RecordBatch
    batch: pa.RecordBatch
    origin: Origin
    rows: Positions
    key_column: str | None

    def __len__(self) -> int:
        return int(self.encoded.num_rows)

    @cached_property
    def keys(self) -> pa.Array:
        """Returns the key of each row, string; the same whenever the row is written again."""
        return to_output(keys_of(self.key_column, self.origin, self.batch, self.rows), pa.string())


class RowWriter(ABC):
    """Writes rows in one worker. It is made where the job is built, pickled, and opened in the worker.

    Attributes:
      stage: the stage that dead letters name for rows that cannot be written.
      columns: the columns that each row is encoded to.
    """

    stage: ClassVar[str] = "write"
    columns: tuple[OutputColumn, ...]

    @property
    def schema(self) -> pa.Schema:
        """Returns the schema of encoded rows."""
        return pa.schema([pa.field(each.name, each.type, nullable=not each.required) for each in self.columns])

    def open(self) -> None:  # noqa: B027  # optional
        """Connects, or makes ready, in the worker."""

    def begin_bundle(self) -> None:  # noqa: B027  # optional
        """Forgets what a bundle that failed has left: its rows are read again."""

    @abstractmethod
    def write(self, rows: OutputRows) -> dict[int, str] | Answers | None:
        """Writes rows, all or none but those that are refused.

        Returns:
          None: all are durable when the bundle ends. A dict: all are durable now but those that it names, each with
          the reason why it is refused. A callable: it waits for that and returns the dict.

        Raises:
          ValueError (RowRefusedError, FormatError), ArithmeticError, pa.ArrowException: a row cannot be written; the
            step tries again with fewer rows.
        """

    def end_bundle(self) -> Iterable[ShardWritten]:
        """Makes durable what was written; returns the receipts of files that are still to be published."""
        return ()

    def close(self) -> None:  # noqa: B027  # optional
        """Closes files and connections."""
