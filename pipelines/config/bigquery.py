"""BigQuery in a config: output of streams and of batch runs, dead letters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from pipelines.config.base import MAX_FRACTION, Fraction, Name, StreamOutput, Strict

TableName = Annotated[str, Field(pattern=r"^[^\s./`]+([.:][^\s./`]+)?\.[A-Za-z0-9_]+\.[^\s./`]+$")]


_STREAM_KEYS = ("mode", "event_time")
_BATCH_KEYS = ("write", "method", "staging", "partition_by", "cluster_by")
_STAGING = "out"


class PartitionBy(Strict):
    """Divides the table that a batch run creates by a column: dates and times by `unit`, integers by a range."""

    column: Name = Field(description="Name of the column.")
    unit: Literal["hour", "day", "month", "year"] | None = Field(
        None, description="Length of a partition of a DATE, TIMESTAMP or DATETIME column; day by default."
    )
    start: int | None = Field(None, description="Start of the first partition of an INT64 column.")
    end: int | None = Field(None, description="End of the last partition of an INT64 column, exclusive.")
    interval: Annotated[int, Field(ge=1)] | None = Field(None, description="Width of a partition of an INT64 column.")

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        bounds = [self.start, self.end, self.interval]
        if any(bound is not None for bound in bounds) and (self.unit or None in bounds):
            raise ValueError("give start, end and interval for a column of integers, or unit for one of times")
        return self

    @property
    def is_range(self) -> bool:
        """Tells whether the column is one of integers."""
        return self.start is not None


class BigQueryOutput(StreamOutput):
    """Writes predictions as rows of a BigQuery table: of a stream by the Storage Write API, of a batch run all at once,
    by one load job or one commit.
    """

    type: Literal["bigquery"]
    table: TableName = Field(description="<project>.<dataset>.<table>")
    create: bool | None = Field(
        None,
        description="Whether to create the table, with the columns that are written, if it does not exist; the "
        "dataset must exist. By default a batch run creates it, and a stream does not.",
    )
    mode: Literal["default", "exactly_once"] = Field(
        "default",
        description="default: rows whose answer was lost are written again. exactly_once: they are not, as each has "
        "its offset in a stream of the worker's own. Messages that come again are written again in both.",
    )
    event_time: Name | None = Field(
        None, description="Name of a further column, TIMESTAMP, for the time of each message's event."
    )

    write: Literal["fail_if_exists", "append", "truncate"] = Field(
        "fail_if_exists",
        description="What a batch run does with a table that exists. fail_if_exists: it is refused. append: its rows "
        "are added. truncate: its rows take the place of those in the table.",
    )
    method: Literal["load", "stream"] = Field(
        "load",
        description="How a batch run delivers its rows. load: Parquet files and one load job. stream: one pending "
        "stream of the Storage Write API and one commit, for where load jobs are not allowed; it cannot truncate.",
    )
    staging: Name | None = Field(
        None,
        description="Folder that holds the Parquet files of a batch run until they are loaded: a gs:// prefix, or a "
        "local folder, whose files are uploaded; out/ by default.",
    )
    partition_by: PartitionBy | None = Field(None, description="How a batch run partitions a table that it creates.")
    cluster_by: Annotated[list[Name], Field(min_length=1, max_length=4)] | None = Field(
        None, description="Columns by which a batch run clusters a table that it creates."
    )

    @property
    def shard_format(self) -> str:
        """Returns the format of the files that a batch run writes."""
        return "parquet"

    @property
    def staging_prefix(self) -> str:
        """Returns the prefix of a batch run's Parquet files."""
        return f"{(self.staging or _STAGING).rstrip('/')}/{self.table.replace(':', '_')}"

    def unfit(self, is_batch: bool) -> list[str]:
        """Lists the keys that a batch run, or a stream, has no use for, one line each."""
        keys, kind = (_STREAM_KEYS, "streams") if is_batch else (_BATCH_KEYS, "batch runs")
        problems = [f"output.{key}: is for {kind}: remove it" for key in keys if key in self.model_fields_set]
        if is_batch and self.method == "stream" and self.write == "truncate":
            problems.append('output.write: truncate needs a load job: remove output.method, or set it to "load"')
        return problems

    def describe(self) -> str:
        """Returns the output in words."""
        return f"table {self.table}"


class BigQueryDeadLetters(Strict):
    """Writes a stream's dead letters as rows of a BigQuery table, whose columns are the keys of the files' objects."""

    type: Literal["bigquery"]
    table: TableName = Field(description="<project>.<dataset>.<table>")
    create: bool = Field(False, description="Whether to create the table if it does not exist; the dataset must exist.")
    max_fraction: Fraction = MAX_FRACTION
