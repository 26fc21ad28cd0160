"""The part of a config that says where rows come from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator
from typing_extensions import Self

from pipelines.variants import Name, Strict, variant


class FileSource(Strict):
    """Files of records, local or on any Beam file system."""

    type: Literal["file"] = "file"
    format: Literal["csv", "json", "avro", "parquet", "orc", "tfrecord"] = Field(
        description="json is newline-delimited JSON; tfrecord holds tf.Examples."
    )
    path: Name | Annotated[list[Name], Field(min_length=1)] = Field(
        description="A path, a glob, a folder, or a list of them. gs:// works. .gz, .bz2 and .zst are "
        "decompressed where the format is text."
    )
    key: Name | None = Field(None, description="The column that identifies a row; without one, <file>:<offset>.")
    columns: dict[Name, Name] = Field({}, description="Model input -> source column, where the names differ.")
    defaults: dict[Name, Any] = Field(
        {}, description='Model input -> value for rows that miss it. "NaN" is a float that is not a number.'
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        None, description="Of CSV files; a comma by default."
    )
    null_values: list[str] | None = Field(
        None, description='Texts that mean a missing value in CSV files; [""] by default.'
    )
    column_names: list[Name] | None = Field(None, description="Of CSV files that have no header line.")

    @property
    def reads(self) -> str:
        """The file format whose reader decodes it."""
        return self.format


class SimulatedSource(Strict):
    """Messages at a set rate: generated births, or the lines of a file over and over. Only for streams."""

    type: Literal["simulated"]
    format: Literal["json"] = "json"
    rate: Annotated[float, Field(ge=0, le=10_000_000)] = Field(
        500, description="Messages a second; 0 for as many as possible."
    )
    messages: Annotated[int, Field(ge=1)] | None = Field(None, description="How many; without end by default.")
    duration_s: Annotated[float, Field(gt=0)] | None = Field(None, description="For how long; without end by default.")
    seed: int = Field(2001, description="Of the generated births.")
    path: Name | None = Field(None, description="A file of messages, one object of JSON a line, in place of births.")
    key: Name | None = Field("source_id", description="The field that identifies a message.")
    columns: dict[Name, Name] = Field({}, description="Model input -> field, where the names differ.")
    defaults: dict[Name, Any] = Field({}, description="Model input -> value for messages that miss it.")

    @property
    def reads(self) -> str:
        """The file format whose reader decodes it."""
        return self.format

    def describe(self) -> str:
        """The source in words."""
        count = f"{self.messages:,} " if self.messages else ""
        rate = f"{self.rate:,g} a second" if self.rate else "as many as possible"
        return f"{count}simulated messages, {rate}"


class PubSubSource(Strict):
    """Messages of a Pub/Sub subscription, each acknowledged when its prediction is durable. Only for streams."""

    type: Literal["pubsub"]
    subscription: Annotated[str, Field(pattern=r"^projects/[^/]+/subscriptions/[^/]+$")] | None = Field(
        None, description="projects/<project>/subscriptions/<name>"
    )
    topic: Annotated[str, Field(pattern=r"^projects/[^/]+/topics/[^/]+$")] | None = Field(
        None,
        description="projects/<project>/topics/<name>, in place of a subscription: a temporary one is made, "
        "which gets what is published from then on, and is deleted at the end.",
    )
    format: Literal["json", "csv", "tfexample"] = Field(
        "json", description="Of a message: one object of JSON, one row of CSV, one serialized tf.Example."
    )
    key: Name | None = Field(None, description="The field that identifies a message.")
    key_attribute: Name | None = Field(
        None, description="The attribute that does, in place of a field. Without either, it is the message's id."
    )
    timestamp_attribute: Name | None = Field(
        None,
        description="The attribute with the event time, RFC 3339 or milliseconds since the epoch; the time of "
        "publishing by default.",
    )
    columns: dict[Name, Name] = Field({}, description="Model input -> field, where the names differ.")
    defaults: dict[Name, Any] = Field({}, description="Model input -> value for messages that miss it.")
    column_names: Annotated[list[Name], Field(min_length=1)] | None = Field(
        None, description="Of messages of CSV: their fields, in order."
    )
    pullers: Annotated[int, Field(ge=1, le=64)] = Field(4, description="Threads that pull at the same time.")
    messages: Annotated[int, Field(ge=1)] | None = Field(None, description="End after so many.")
    duration_s: Annotated[float, Field(gt=0)] | None = Field(None, description="End after so long.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.subscription is None) == (self.topic is None):
            raise ValueError("give either a subscription or a topic")
        if self.key and self.key_attribute:
            raise ValueError("give key or key_attribute, not both")
        if (self.format == "csv") != (self.column_names is not None):
            raise ValueError("column_names: messages of CSV need it, others have none")
        return self

    @property
    def reads(self) -> str:
        """The file format whose reader decodes it."""
        return "tfrecord" if self.format == "tfexample" else self.format

    def describe(self) -> str:
        """The source in words."""
        return f"messages of {self.subscription or self.topic}"


SourceConfig = Annotated[
    Annotated[FileSource, Tag("file")]
    | Annotated[SimulatedSource, Tag("simulated")]
    | Annotated[PubSubSource, Tag("pubsub")],
    variant("file"),
]
