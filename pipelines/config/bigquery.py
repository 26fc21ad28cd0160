"""BigQuery in a config: output, dead letters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.base import MAX_FRACTION, Fraction, Name, StreamOutput, Strict

TableName = Annotated[str, Field(pattern=r"^[^\s./`]+([.:][^\s./`]+)?\.[A-Za-z0-9_]+\.[^\s./`]+$")]


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
