"""BigQuery in a config: output, dead letters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.base import _TOO_MANY, Fraction, Name, StreamOutput, Strict

TableName = Annotated[str, Field(pattern=r"^[^\s./`]+([.:][^\s./`]+)?\.[A-Za-z0-9_]+\.[^\s./`]+$")]


class BigQueryOutput(StreamOutput):
    """A stream's predictions as rows of a BigQuery table, by its Storage Write API."""

    type: Literal["bigquery"]
    table: TableName = Field(description="<project>.<dataset>.<table>")
    create: bool = Field(
        False, description="Make the table, if it is not there, with the columns that are written; not the dataset."
    )
    mode: Literal["default", "exactly_once"] = Field(
        "default",
        description="default: rows whose answer was lost are written again. exactly_once: they are not, as each has "
        "its offset in a stream of the worker's own. Messages that come again are written again in both.",
    )
    event_time: Name | None = Field(None, description="A column more, TIMESTAMP: when what the message tells happened.")

    def describe(self) -> str:
        """The output in words."""
        return f"table {self.table}"


class BigQueryDeadLetters(Strict):
    """Of a stream: the same, as rows of a BigQuery table, whose columns are the keys of the files' objects."""

    type: Literal["bigquery"]
    table: TableName = Field(description="<project>.<dataset>.<table>")
    create: bool = Field(False, description="Make the table, if it is not there; not the dataset.")
    max_fraction: Fraction = _TOO_MANY
