"""The part of a config that says where predictions go, and where the rows go that have none."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field, Tag

from pipelines.kafka_config import KafkaSecurity, KafkaTopic, Servers
from pipelines.variants import Name, Strict, variant

TableName = Annotated[str, Field(pattern=r"^[^\s./`]+([.:][^\s./`]+)?\.[A-Za-z0-9_]+\.[^\s./`]+$")]
Columns = Annotated[list[Name], Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
_TOO_MANY = Field(0.01, description="A larger share of the rows makes the run fail (exit code 3).")
TopicName = Annotated[str, Field(pattern=r"^projects/[^/]+/topics/[^/]+$")]


class FileOutput(Strict):
    """Files of predictions, published whole at the end of the run."""

    type: Literal["file"] = "file"
    format: Literal["csv", "json", "parquet", "avro", "tfrecord"]
    path: Name = Field(description="Prefix of the shards (<path>-00000-of-00002.csv); a folder if it ends in /.")
    columns: Columns | None = Field(
        None,
        description="Input columns and model outputs to write, * for all; by default the key, then all outputs.",
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

    @property
    def passes_attributes(self) -> bool:
        """Whether what came with a message beside its payload is wanted."""
        return False

    def describe(self) -> str:
        """The output in words."""
        return f"{self.path}-*.{self.format}"


class StreamOutput(Strict):
    """What the outputs have in common that only streams have; a subclass adds `type` and where the rows go."""

    columns: Columns | None = Field(
        None,
        description="Input columns and model outputs to write, * for all; by default the key, then all outputs.",
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

    @property
    def passes_attributes(self) -> bool:
        """Whether what came with a message beside its payload is wanted."""
        return False

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


class PubSubOutput(StreamOutput):
    """A stream's predictions as messages of a Pub/Sub topic: objects of JSON, their keys as attribute `source_id`."""

    type: Literal["pubsub"]
    topic: TopicName = Field(description="projects/<project>/topics/<name>; it has to be there.")
    attributes: bool = Field(True, description="Attributes and headers that came with a message are passed on.")
    ordering_key: Name | None = Field(
        None,
        description="The column whose rows of the same value Pub/Sub is to deliver in their order, if the subscription "
        "has message ordering.",
    )

    @property
    def passes_attributes(self) -> bool:
        """Whether what came with a message beside its payload is wanted."""
        return self.attributes

    def describe(self) -> str:
        """The output in words."""
        return self.topic


class KafkaOutput(StreamOutput):
    """A stream's predictions as messages of a Kafka topic: objects of JSON, with their keys as record keys."""

    type: Literal["kafka"]
    bootstrap_servers: Servers = Field(description="host:port of brokers to begin with, commas between them.")
    topic: KafkaTopic = Field(description="It has to be there.")
    security: KafkaSecurity = KafkaSecurity.model_construct()
    headers: bool = Field(
        True,
        description="Headers and attributes that came with a message are passed on, and `source_id` is the row's key.",
    )

    @property
    def passes_attributes(self) -> bool:
        """Whether what came with a message beside its payload is wanted."""
        return self.headers

    def describe(self) -> str:
        """The output in words."""
        return f"topic {self.topic} at {self.bootstrap_servers}"


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


class BigtableOutput(StreamOutput):
    """A stream's predictions as rows of a Bigtable table, one cell a column, whose time is that of the event."""

    type: Literal["bigtable"]
    instance: Annotated[str, Field(pattern=r"^projects/[^/]+/instances/[^/]+$")] = Field(
        description="projects/<project>/instances/<name>"
    )
    table: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,50}$")] = Field(description="Its name in the instance.")
    row_key: Name = Field(
        description='Text with columns in braces, such as "births#{mother_race}#{source_id}": columns that are '
        "written, and those that the model takes. Rows of the same key overwrite each other."
    )
    family: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field("p", description="Of the cells.")
    create: bool = Field(False, description="Make the table, or the family, if it is not there; one version a cell.")
    values: Literal["text", "binary"] = Field(
        "text",
        description="text: as in JSON, texts without quotes. binary: integers and floats as 8 bytes, big-endian, all "
        "else as text.",
    )

    def describe(self) -> str:
        """The output in words."""
        return f"table {self.table} of {self.instance}"


OutputConfig = Annotated[
    Annotated[FileOutput, Tag("file")]
    | Annotated[ConsoleOutput, Tag("console")]
    | Annotated[PubSubOutput, Tag("pubsub")]
    | Annotated[KafkaOutput, Tag("kafka")]
    | Annotated[BigQueryOutput, Tag("bigquery")]
    | Annotated[BigtableOutput, Tag("bigtable")],
    variant("file"),
]


class DeadLetters(Strict):
    """Rows that could not be processed, in files; and how many of them are too many."""

    type: Literal["file"] = "file"
    path: Name | None = Field(None, description="Prefix of the shards; <output.path>-dead_letters by default.")
    max_fraction: Fraction = _TOO_MANY
    permissions: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = Field(
        "0600",
        description="Access rights of the files on local file systems, octal; they hold original rows. Folders of "
        "temporary files have the same rights, and may be entered by those who may read.",
    )

    @property
    def file_mode(self) -> int:
        """The access rights as a number, without those to execute."""
        return int(self.permissions, 8) & 0o666 | 0o600

    @property
    def folder_mode(self) -> int:
        """The access rights of a folder for such files: who may read them may enter it."""
        return self.file_mode | (self.file_mode & 0o444) >> 2


class PubSubDeadLetters(Strict):
    """Of a stream: the same, as messages of a Pub/Sub topic, with the rows' keys as attribute `source_id`."""

    type: Literal["pubsub"]
    topic: TopicName = Field(description="projects/<project>/topics/<name>; it has to be there.")
    max_fraction: Fraction = _TOO_MANY


class KafkaDeadLetters(Strict):
    """Of a stream: the same, as messages of a Kafka topic, with the rows' keys."""

    type: Literal["kafka"]
    bootstrap_servers: Servers = Field(description="host:port of brokers to begin with, commas between them.")
    topic: KafkaTopic = Field(description="It has to be there.")
    security: KafkaSecurity = KafkaSecurity.model_validate({})
    max_fraction: Fraction = _TOO_MANY

    def describe(self) -> str:
        """Where they are, in words."""
        return f"topic {self.topic} at {self.bootstrap_servers}"


class BigQueryDeadLetters(Strict):
    """Of a stream: the same, as rows of a BigQuery table, whose columns are the keys of the files' objects."""

    type: Literal["bigquery"]
    table: TableName = Field(description="<project>.<dataset>.<table>")
    create: bool = Field(False, description="Make the table, if it is not there; not the dataset.")
    max_fraction: Fraction = _TOO_MANY


DeadLettersConfig = Annotated[
    Annotated[DeadLetters, Tag("file")]
    | Annotated[PubSubDeadLetters, Tag("pubsub")]
    | Annotated[KafkaDeadLetters, Tag("kafka")]
    | Annotated[BigQueryDeadLetters, Tag("bigquery")],
    variant("file"),
]
