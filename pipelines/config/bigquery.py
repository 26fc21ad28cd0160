"""BigQuery in a config: source, output, dead letters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, field_validator, model_validator
from typing_extensions import Self

from pipelines.config.base import MAX_FRACTION, Columns, Fraction, Name, StreamOutput, Strict
from pipelines.config.columns import ColumnsConfig, ColumnsField, DefaultsField, Encodings

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


class BigQueryOutput(StreamOutput):
    """Writes a stream's predictions as rows of a BigQuery table, by its Storage Write API."""

    type: Literal["bigquery"]
    table: TableName = Field(description="<project>.<dataset>.<table>")
    create: bool = Field(
        False,
        description="Whether to create the table, with the columns that are written, if it does not exist; the "
        "dataset must exist.",
    )
    mode: Literal["default", "exactly_once"] = Field(
        "default",
        description="default: rows whose answer was lost are written again. exactly_once: they are not, as each has "
        "its offset in a stream of the worker's own. Messages that come again are written again in both.",
    )
    event_time: Name | None = Field(
        None, description="Name of a further column, TIMESTAMP, for the time of each message's event."
    )

    def describe(self) -> str:
        """Returns the output in words."""
        return f"table {self.table}"


class BigQueryDeadLetters(Strict):
    """Writes a stream's dead letters as rows of a BigQuery table, whose columns are the keys of the files' objects."""

    type: Literal["bigquery"]
    table: TableName = Field(description="<project>.<dataset>.<table>")
    create: bool = Field(False, description="Whether to create the table if it does not exist; the dataset must exist.")
    max_fraction: Fraction = MAX_FRACTION
