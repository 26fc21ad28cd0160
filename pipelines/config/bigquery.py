"""Defines BigQuery in a config: source, output of streams and of batch runs, dead letters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, field_validator, model_validator
from typing_extensions import Self

from pipelines.config.base import MAX_FRACTION, Columns, Fraction, Name, StreamOutput, Strict
from pipelines.config.columns import ColumnsConfig, ColumnsField, DefaultsField, Encodings
from pipelines.config.paths import AnyPath

TableName = Annotated[str, Field(pattern=r"^[^\s./`]+([.:][^\s./`]+)?\.[A-Za-z0-9_]+\.[^\s./`]+$")]

DatasetName = Annotated[str, Field(pattern=r"^[^\s./`]+([.:][^\s./`]+)?\.[A-Za-z0-9_]+$")]


class BigQuerySource(Strict):
    """Reads a table, a view or the result of a query, by the Storage Read API."""

    type: Literal["bigquery"]
    table: TableName | None = Field(
        None, description="<project>.<dataset>.<table>: a table or a view. Give this or `query`."
    )
    query: Name | None = Field(
        None, description="One SELECT statement in GoogleSQL, whose result is read. Give this or `table`."
    )
    key: Name | None = Field(
        None,
        description="The column that identifies a row; without one, <table>/<piece>:<row>, which another run numbers "
        "otherwise.",
    )
    columns: ColumnsConfig = ColumnsField
    select: Columns | None = Field(
        None,
        description="The only columns that may be read, and all that * stands for in output.columns. Columns that "
        "neither the model nor the output needs are not asked for in any case. `columns` may be such a list in its "
        "place, if no column is mapped.",
    )
    filter: Name | None = Field(
        None, description='Rows to read, as a condition of GoogleSQL without WHERE: "year > 2000". BigQuery applies it.'
    )
    defaults: dict[Name, Any] = DefaultsField
    encodings: Encodings = Field(
        {},
        description='Columns of text that stands for bytes, for inputs of bytes: {"image": "base64"}. Columns of type '
        "BYTES need none.",
    )
    snapshot_time: AwareDatetime | None = Field(
        None,
        description="Of a table: read it as it was at this time, such as 2026-01-31T12:00:00Z, so that another run "
        "reads the same rows. BigQuery keeps seven days. In a query, write FOR SYSTEM_TIME AS OF.",
    )
    project: Name | None = Field(
        None,
        description="The project that reads and pays; by default that of the credentials, with an emulator that of the "
        "table.",
    )
    location: Name | None = Field(
        None, description="Where a query runs, such as EU; by default BigQuery finds it from the tables of the query."
    )
    max_bytes_billed: Annotated[int, Field(ge=1)] | None = Field(
        None, description="A query (or a view) that reads more bytes than this is refused before the run starts."
    )
    temporary_dataset: DatasetName | None = Field(
        None,
        description="<project>.<dataset> for the result of a query or view, as a table that expires after a day. "
        "Without it BigQuery keeps the result in an anonymous table, which only the account of the query can read.",
    )

    @model_validator(mode="before")
    @classmethod
    def _takes_a_list_of_columns(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("columns"), list):
            if "select" in values:
                raise ValueError("columns: beside select, it maps model inputs to columns; give an object")
            return {**{name: value for name, value in values.items() if name != "columns"}, "select": values["columns"]}
        return values

    @field_validator("query")
    @classmethod
    def _is_one_statement(cls, value: str | None) -> str | None:
        return value.strip().rstrip(";").rstrip() if value else value

    @model_validator(mode="after")
    def _reads_one_thing(self) -> Self:
        if bool(self.table) == bool(self.query):
            raise ValueError("table: give either table or query")
        if self.query and self.snapshot_time:
            raise ValueError("snapshot_time: is for tables; in a query, write FOR SYSTEM_TIME AS OF")
        return self

    @property
    def format(self) -> str:
        """Returns the format of its rows."""
        return "bigquery"

    @property
    def reads(self) -> str:
        """Returns the format whose reader decodes its dead letters."""
        return "bigquery"

    def describe(self) -> str:
        """Returns the source in words."""
        return f"BigQuery table {self.table}" if self.table else "BigQuery query"


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
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError(f"end: must be more than start, {self.start}")
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
    staging: AnyPath | None = Field(
        None,
        description="Folder that holds the Parquet files of a batch run until they are loaded: a gs:// prefix, or a "
        "local folder, whose files are uploaded; out/ by default.",
    )
    partition_by: PartitionBy | None = Field(None, description="How a batch run partitions a table that it creates.")
    cluster_by: Annotated[list[Name], Field(min_length=1, max_length=4)] | None = Field(
        None, description="Columns by which a batch run clusters a table that it creates."
    )

    @field_validator("staging")
    @classmethod
    def _is_loaded_from(cls, value: str | None) -> str | None:
        scheme, separator, _ = (value or "").partition("://")
        if separator and scheme != "gs":
            raise ValueError(
                f"BigQuery does not load from {scheme}://; give a gs:// prefix, or a local folder, whose files are "
                "uploaded"
            )
        return value

    @field_validator("cluster_by")
    @classmethod
    def _has_each_once(cls, value: list[str] | None) -> list[str] | None:
        low = [name.lower() for name in value or ()]
        for name in value or ():
            if low.count(name.lower()) > 1:
                raise ValueError(f"'{name}' appears twice; leave one out")
        return value

    @property
    def shard_format(self) -> str:
        """Returns the format of the files that a batch run writes."""
        return "parquet"

    @property
    def staging_folder(self) -> str:
        """Returns the folder of a batch run's Parquet files."""
        return self.staging or _STAGING

    @property
    def staging_prefix(self) -> str:
        """Returns the prefix of a batch run's Parquet files."""
        return f"{self.staging_folder.rstrip('/')}/{self.table.replace(':', '_')}"

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
