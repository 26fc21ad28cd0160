"""Holds what a delivery to BigQuery needs to know, as the commit record of a batch run keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipelines.config.bigquery import BigQueryOutput, PartitionBy
from pipelines.connectors.bigquery.tables import Column, Table


class ColumnSettings(BaseModel):
    """Describes a column of the table, as tables.Column does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    type: str
    mode: str


class DeliverySettings(BaseModel):
    """Says where rows go, and how.

    Attributes:
      table: its name.
      write: see BigQueryOutput.
      method: see BigQueryOutput.
      create: whether the table may be created.
      partition_by: how a new table is partitioned.
      cluster_by: how a new table is clustered.
      columns: the columns that are written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    write: Literal["fail_if_exists", "append", "truncate"]
    method: Literal["load", "stream"]
    create: bool
    partition_by: PartitionBy | None
    cluster_by: tuple[str, ...] = ()
    columns: tuple[ColumnSettings, ...]

    @classmethod
    def of(cls, output: BigQueryOutput, columns: Sequence[Column]) -> DeliverySettings:
        """Returns the settings of an output that writes some columns."""
        return cls(
            table=output.table,
            write=output.write,
            method=output.method,
            create=output.create is not False,
            partition_by=output.partition_by,
            cluster_by=tuple(output.cluster_by or ()),
            columns=tuple(ColumnSettings(name=c.name, type=c.type, mode=c.mode) for c in columns),
        )

    @property
    def fields(self) -> list[Any]:
        """Returns the columns as the client of BigQuery has them."""
        from google.cloud.bigquery import SchemaField

        return [SchemaField(column.name, column.type, column.mode) for column in self.columns]

    @property
    def target(self) -> Table:
        """Returns the name of the table."""
        return Table.parse(self.table)

    def lay_out(self, made: Any) -> None:
        """Sets partitions and clusters of a table to be created, or of the job that creates it."""
        made.time_partitioning, made.range_partitioning = partitioning(self.partition_by)
        made.clustering_fields = list(self.cluster_by) or None


def partitioning(by: PartitionBy | None) -> tuple[Any, Any]:
    """Returns the partitioning by time and that by ranges, as the client of BigQuery has them; None where none is."""
    from google.cloud.bigquery import PartitionRange, RangePartitioning, TimePartitioning

    if by is None:
        return None, None
    if by.is_range:
        return None, RangePartitioning(PartitionRange(start=by.start, end=by.end, interval=by.interval), by.column)
    return TimePartitioning(type_=(by.unit or "day").upper(), field=by.column), None
