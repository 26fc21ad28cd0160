"""The part of a config that says where rows come from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Tag, field_validator, model_validator
from typing_extensions import Self

from pipelines.formats.charset import is_within, problem_of
from pipelines.kafka_config import KafkaSecurity, KafkaTopic, Servers
from pipelines.variants import Name, Strict, variant

Encodings = dict[Name, Literal["base64"]]


def _column_or_columns(value: Any) -> Any:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError('name a column, or a list of columns, such as ["age", "height"]')
    return value


ColumnsConfig = dict[
    Name,
    Annotated[Name | Annotated[list[Name], Field(min_length=1)], BeforeValidator(_column_or_columns)],
]
ColumnsField: Any = Field(
    {},
    description="Model input -> source column (of messages: field), where the names differ. A list of columns, each "
    "with one value a row, is gathered to a vector, for an input of shape [batch, n]; their order is that of the "
    "model's training.",
)
DefaultsField: Any = Field(
    {},
    description='Model input (or column) -> value for rows that miss it. "NaN" is a float that is not a number. Of a '
    "vector: a column's own default, or for the input one value for all its columns, or a list with one for each. Of "
    "an input of lists: a list, or one value that fills it.",
)


class FileSource(Strict):
    """Files of records, local or on any Beam file system."""

    type: Literal["file"] = "file"
    format: Literal["csv", "json", "avro", "parquet", "orc", "tfrecord", "text", "bytes"] = Field(
        description="json is newline-delimited JSON. text: each line is a row, its column is `line`. bytes: each file "
        "is a row, such as an image, with columns `path` and `bytes`. The one text input of a model takes the line, "
        "the bytes or the raw record without a word in `columns`."
    )
    path: Name | Annotated[list[Name], Field(min_length=1)] = Field(
        description="A path, a glob, a folder, or a list of them. gs:// works. .gz, .bz2 and .zst are "
        "decompressed where the format is csv, json or text."
    )
    key: Name | None = Field(
        None, description="The column that identifies a row; without one, <file>:<offset>. Of bytes, path by default."
    )
    columns: ColumnsConfig = ColumnsField
    defaults: dict[Name, Any] = DefaultsField
    encodings: Encodings = Field(
        {},
        description='Columns of text that stands for bytes, for inputs of bytes: {"image": "base64"}. Objects '
        '{"b64": "..."} of JSON are bytes without a word here.',
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        None, description='Of CSV files; a comma by default, "\\t" is a tab.'
    )
    quote: Annotated[str, Field(max_length=1)] | None = Field(
        None, description='Of CSV files, around fields; " by default. "" for none: then every line is a row.'
    )
    encoding: str | None = Field(
        None,
        description="Of CSV, JSON and text files: utf-8 by default, with or without a BOM; utf-16, latin-1, cp1252, or "
        "any other that Python knows and that has ASCII's characters at their places.",
    )
    trim: bool | None = Field(
        None, description="Of CSV files: spaces and tabs around fields, and names of columns, mean nothing."
    )
    decimal: Literal[".", ","] | None = Field(
        None,
        description="Of CSV files: what stands in numbers of the model's columns; a point by default. With a comma, "
        "such a column that is written too is written as numbers.",
    )
    null_values: list[str] | None = Field(
        None,
        description='Texts that mean a missing value in CSV files, in quotes or not; [""] by default. With [] none '
        "is missing: an empty field is an empty text.",
    )
    column_names: list[Name] | None = Field(None, description="Of CSV files that have no header line.")
    record: Literal["example", "raw"] | None = Field(
        None,
        description="Of TFRecord files: example, the default, are tf.Examples, whose features are columns. raw: each "
        "record is a row, its column is `record`, for models that take whole records, such as tf.SequenceExamples.",
    )

    @model_validator(mode="before")
    @classmethod
    def _names_its_rows(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("format") == "bytes":
            return {"key": "path", **values}
        return values

    @field_validator("delimiter", "quote")
    @classmethod
    def _is_one_byte(cls, value: str | None) -> str | None:
        if value is not None and (not value.isascii() or value in "\r\n\0") and value:
            raise ValueError(f"{value!r} is no character that can stand between fields; give one of ASCII")
        return value

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and (problem := problem_of(value)):
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _has_what_its_format_has(self) -> Self:
        of_formats = {
            "quote": ("csv",),
            "trim": ("csv",),
            "decimal": ("csv",),
            "encoding": ("csv", "json", "text"),
            "record": ("tfrecord",),
        }
        for name, formats in of_formats.items():
            if getattr(self, name) is not None and self.format not in formats:
                raise ValueError(f"{name}: {self.format} files have none, only {', '.join(formats)}")
        if self.quote and self.quote == (self.delimiter or ","):
            raise ValueError("quote: it is the delimiter too")
        for name in ("delimiter", "quote"):
            char = getattr(self, name)
            if char and self.encoding and is_within(char, self.encoding):
                raise ValueError(f"{name}: {char!r} is a part of other characters in {self.encoding}; use UTF-8")
        return self

    @property
    def reads(self) -> str:
        """The file format whose reader decodes it."""
        return "tfrecord_raw" if self.record == "raw" else self.format


def source_encodings(source: SourceConfig) -> dict[str, str]:
    """The columns of a source whose text stands for bytes, and how."""
    return dict(getattr(source, "encodings", {}))


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
    columns: ColumnsConfig = ColumnsField
    defaults: dict[Name, Any] = DefaultsField
    encodings: Encodings = Field(
        {}, description='Fields of text that stands for bytes, for inputs of bytes: {"image": "base64"}.'
    )

    @property
    def reads(self) -> str:
        """The file format whose reader decodes it."""
        return self.format

    def describe(self) -> str:
        """The source in words."""
        count = f"{self.messages:,} " if self.messages else ""
        rate = f"{self.rate:,g} a second" if self.rate else "as many as possible"
        return f"{count}simulated messages, {rate}"


class MessageSource(Strict):
    """What all sources of messages have in common; a subclass adds `type` and where the messages are."""

    format: Literal["json", "csv", "tfexample", "avro", "protobuf"] = Field(
        "json",
        description="Of a message: one object of JSON, one row of CSV, one serialized tf.Example, one datum of Avro, "
        "one message of protobuf.",
    )
    key: Name | None = Field(None, description="The field that identifies a message.")
    columns: ColumnsConfig = ColumnsField
    defaults: dict[Name, Any] = DefaultsField
    encodings: Encodings = Field(
        {}, description='Fields of text that stands for bytes, for inputs of bytes: {"image": "base64"}.'
    )
    column_names: Annotated[list[Name], Field(min_length=1)] | None = Field(
        None, description="Of messages of CSV: their fields, in order."
    )
    schema_: Name | None = Field(
        None, alias="schema", description="Of messages of Avro: the file with the schema that they are written with."
    )
    descriptor: Name | None = Field(
        None,
        description="Of messages of protobuf: the file with their descriptors, made by "
        "`protoc --include_imports --descriptor_set_out=FILE`.",
    )
    message: Name | None = Field(
        None, description="Of messages of protobuf: the full name of their type, such as shop.v1.Order."
    )
    framing: Literal["none", "single_object", "confluent"] = Field(
        "none",
        description="What stands before an Avro datum or a protobuf message: nothing; the fingerprint of Avro's "
        "single-object encoding, which has to be the schema's; or the id that Confluent's serializers write, which "
        "is not looked at.",
    )
    messages: Annotated[int, Field(ge=1)] | None = Field(None, description="End after so many.")
    duration_s: Annotated[float, Field(gt=0)] | None = Field(None, description="End after so long.")

    @model_validator(mode="after")
    def _has_what_its_format_needs(self) -> Self:
        if (self.format == "csv") != (self.column_names is not None):
            raise ValueError("column_names: messages of CSV need it, others have none")
        if (self.format == "avro") != (self.schema_ is not None):
            raise ValueError("schema: messages of Avro need it, others have none")
        if (self.format == "protobuf") != (self.descriptor is not None):
            raise ValueError("descriptor: messages of protobuf need it, others have none")
        if (self.format == "protobuf") != (self.message is not None):
            raise ValueError("message: messages of protobuf need it, others have none")
        framings = {"avro": ("none", "single_object", "confluent"), "protobuf": ("none", "confluent")}
        allowed = framings.get(self.format, ("none",))
        if self.framing not in allowed:
            raise ValueError(f"framing: messages of {self.format} have {' or '.join(allowed)}, not {self.framing}")
        return self

    @property
    def reads(self) -> str:
        """The format whose reader decodes it."""
        return {"tfexample": "tfrecord", "avro": "avro_message"}.get(self.format, self.format)


class PubSubSource(MessageSource):
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
    key_attribute: Name | None = Field(
        None, description="The attribute that does, in place of a field. Without either, it is the message's id."
    )
    timestamp_attribute: Name | None = Field(
        None,
        description="The attribute with the event time, RFC 3339 or milliseconds since the epoch; the time of "
        "publishing by default.",
    )
    pullers: Annotated[int, Field(ge=1, le=64)] = Field(4, description="Threads that pull at the same time.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.subscription is None) == (self.topic is None):
            raise ValueError("give either a subscription or a topic")
        if self.key and self.key_attribute:
            raise ValueError("give key or key_attribute, not both")
        return self

    def describe(self) -> str:
        """The source in words."""
        return f"messages of {self.subscription or self.topic}"


class KafkaSource(MessageSource):
    """Messages of Kafka topics, each committed when its prediction is durable. Only for streams."""

    type: Literal["kafka"]
    bootstrap_servers: Servers = Field(description="host:port of brokers to begin with, commas between them.")
    topic: KafkaTopic | Annotated[list[KafkaTopic], Field(min_length=1)] = Field(description="A topic, or a list.")
    group: Name = Field(
        description="The consumer group: Kafka keeps for it how far it has got, and shares the partitions among all "
        "that read with it."
    )
    start: str = Field(
        "earliest",
        description="Where a group begins that has not committed anything: earliest, latest, or a time such as "
        "2024-05-01T12:00:00Z.",
    )
    security: KafkaSecurity = KafkaSecurity.model_construct()
    key: Name | None = Field(
        None,
        description="The field that identifies a message. Without one, it is the record's key, or "
        "<topic>[<partition>]:<offset> where it has none.",
    )

    @field_validator("start")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        if value not in ("earliest", "latest"):
            try:
                time = datetime.fromisoformat(value.replace("Z", "+00:00"))
            except ValueError:
                raise ValueError(f"{value!r} is not earliest, latest, or a time like 2024-05-01T12:00:00Z") from None
            if time.tzinfo is None:
                raise ValueError(f"{value!r} has no time zone; for UTC write {value}Z")
        return value

    @property
    def topics(self) -> list[str]:
        """All of them."""
        return [self.topic] if isinstance(self.topic, str) else self.topic

    @property
    def begins(self) -> str | int:
        """Where a new group does: "earliest", "latest", or milliseconds since the epoch."""
        if self.start in ("earliest", "latest"):
            return self.start
        return int(datetime.fromisoformat(self.start.replace("Z", "+00:00")).timestamp() * 1000)

    def describe(self) -> str:
        """The source in words."""
        return f"messages of Kafka's {' and '.join(self.topics)}, as group {self.group}"


SourceConfig = Annotated[
    Annotated[FileSource, Tag("file")]
    | Annotated[SimulatedSource, Tag("simulated")]
    | Annotated[PubSubSource, Tag("pubsub")]
    | Annotated[KafkaSource, Tag("kafka")],
    variant("file"),
]
