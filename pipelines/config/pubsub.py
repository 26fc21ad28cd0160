"""Pub/Sub in a config: source, output, dead letters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from pipelines.config.base import _TOO_MANY, Fraction, Name, StreamOutput, Strict
from pipelines.config.messages import MessageSource


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


TopicName = Annotated[str, Field(pattern=r"^projects/[^/]+/topics/[^/]+$")]


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


class PubSubDeadLetters(Strict):
    """Of a stream: the same, as messages of a Pub/Sub topic, with the rows' keys as attribute `source_id`."""

    type: Literal["pubsub"]
    topic: TopicName = Field(description="projects/<project>/topics/<name>; it has to be there.")
    max_fraction: Fraction = _TOO_MANY
