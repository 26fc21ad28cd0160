"""The keys that all sources of messages share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from pipelines.config.base import Name, Strict
from pipelines.config.columns import ColumnsConfig, ColumnsField, DefaultsField, Encodings


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
