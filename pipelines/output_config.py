"""The part of a config that says where predictions go, and where the rows go that have none."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field, Tag

from pipelines.variants import Name, Strict, variant

Columns = Annotated[list[Name], Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class FileOutput(Strict):
    """Files of predictions, published whole at the end of the run."""

    type: Literal["file"] = "file"
    format: Literal["csv", "json", "parquet", "avro", "tfrecord"]
    path: Name = Field(description="Prefix of the shards (<path>-00000-of-00002.csv); a folder if it ends in /.")
    columns: Columns | None = Field(
        None, description="Input columns and model outputs to write; by default the key, then all outputs."
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        None, description="Of CSV files; a comma by default."
    )
    record: Literal["example", "prediction_log"] | None = Field(
        None, description="What a TFRecord holds: tf.Examples, or PredictionLogs as TFX's BulkInferrer writes."
    )
    window_s: Annotated[float, Field(gt=0)] = Field(
        60, description="Of a stream: a file is published when it is so many seconds old."
    )
    show: Annotated[int, Field(ge=0)] = Field(
        0, description="Of a stream: so many rows a second are shown on the console too."
    )

    def describe(self) -> str:
        """The output in words."""
        return f"{self.path}-*.{self.format}"


class StreamOutput(Strict):
    """What the outputs have in common that only streams have; a subclass adds `type` and where the rows go."""

    columns: Columns | None = Field(
        None, description="Input columns and model outputs to write; by default the key, then all outputs."
    )
    window_s: Annotated[float, Field(gt=0)] = Field(60, description="Of the dead letters' files.")
    show: Annotated[int, Field(ge=0)] = Field(0, description="So many rows a second are shown on the console too.")

    @property
    def path(self) -> str:
        """There is no file."""
        return ""

    @property
    def format(self) -> str:
        """Of a row: its values are those of JSON."""
        return "json"

    @abstractmethod
    def describe(self) -> str:
        """The output in words."""


class ConsoleOutput(StreamOutput):
    """A stream's predictions on the console, for people to look at: some rows a second, as lines of JSON."""

    type: Literal["console"]
    show: Annotated[int, Field(ge=1)] = Field(10, description="Rows a second.")

    def describe(self) -> str:
        """The output in words."""
        return "the console"


OutputConfig = Annotated[Annotated[FileOutput, Tag("file")] | Annotated[ConsoleOutput, Tag("console")], variant("file")]


class DeadLetters(Strict):
    """Where rows go that could not be processed, and how many of them are too many."""

    path: Name | None = Field(None, description="Prefix of the shards; <output.path>-dead_letters by default.")
    max_fraction: Fraction = Field(0.01, description="A larger share of the rows makes the run fail (exit code 3).")
