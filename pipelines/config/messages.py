"""Defines the keys that all sources of messages share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from pipelines.config.base import Name, Strict
from pipelines.config.columns import ColumnsConfig, ColumnsField, DefaultsField, Encodings
from pipelines.config.paths import AnyPath


class MessageSource(Strict):
    """Holds what all sources of messages have in common; a subclass adds `type` and where the messages are."""

    format: Literal["json", "csv", "tfexample", "avro", "protobuf"] = Field(
        "json",
        description=(
            "Format of a message's payload: one object of JSON, one row of CSV, one serialized tf.Example, one "
            "datum of Avro, one message of protobuf."
        ),
    )
    key: Name | None = Field(None, description="Field of the message that identifies a row.")
    columns: ColumnsConfig = ColumnsField
    defaults: dict[Name, Any] = DefaultsField
    encodings: Encodings = Field(
        {}, description='Fields of text that stands for bytes, for inputs of bytes: {"image": "base64"}.'
    )
    column_names: Annotated[list[Name], Field(min_length=1)] | None = Field(
        None, description="Names of the fields of a CSV message, in order; required for csv and not allowed otherwise."
    )
    schema_: AnyPath | None = Field(
        None,
        alias="schema",
        description="File with the schema that Avro messages are written with; required for avro and not allowed "
        "otherwise.",
    )
    descriptor: AnyPath | None = Field(
        None,
        description=(
            "File with the descriptors of protobuf messages, made by `protoc --include_imports "
            "--descriptor_set_out=FILE`; required for protobuf and not allowed otherwise."
        ),
    )
    message: Name | None = Field(
        None,
        description="Full name of the type of protobuf messages, such as shop.v1.Order; required for protobuf and not "
        "allowed otherwise.",
    )
    framing: Literal["none", "single_object", "confluent"] = Field(
        "none",
        description="What stands before an Avro datum or a protobuf message: nothing; the fingerprint of Avro's "
        "single-object encoding, which has to be the schema's; or the id that Confluent's serializers write, which "
        "is not looked at.",
    )
    messages: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Number of messages after which the stream ends; without end by default."
    )
    duration_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Seconds after which the stream ends; without end by default."
    )

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
        """Returns the format whose reader decodes it."""
        return {"tfexample": "tfrecord", "avro": "avro_message"}.get(self.format, self.format)
