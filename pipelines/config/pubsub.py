"""Defines Pub/Sub in a config: source, output, dead letters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from pipelines.config.base import MAX_FRACTION, Fraction, Name, StreamOutput, Strict
from pipelines.config.messages import MessageSource


class PubSubSource(MessageSource):
    """Reads messages of a Pub/Sub subscription, each acknowledged when its prediction is durable. Only for streams."""

    type: Literal["pubsub"]
    subscription: Annotated[str, Field(pattern=r"^projects/[^/]+/subscriptions/[^/]+$")] | None = Field(
        None, description="projects/<project>/subscriptions/<name>"
    )
    topic: Annotated[str, Field(pattern=r"^projects/[^/]+/topics/[^/]+$")] | None = Field(
        None,
        description="Topic to read, projects/<project>/topics/<name>; use it instead of a subscription: a temporary "
        "one is made, "
        "which gets what is published from then on, and is deleted at the end.",
    )
    key_attribute: Name | None = Field(
        None,
        description="Message attribute that holds the key; use it instead of `key` when the key is not in the "
        "payload. Without either, the message's id is the key.",
    )
    timestamp_attribute: Name | None = Field(
        None,
        description="Message attribute with the event time, RFC 3339 or milliseconds since the epoch; the time of "
        "publishing by default.",
    )
    pullers: Annotated[int, Field(ge=1, le=64)] = Field(4, description="Number of threads that pull at the same time.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.subscription is None) == (self.topic is None):
            raise ValueError("give either a subscription or a topic")
        if self.key and self.key_attribute:
            raise ValueError("give key or key_attribute, not both")
        return self

    def describe(self) -> str:
        """Returns the source in words."""
        return f"messages of {self.subscription or self.topic}"


TopicName = Annotated[str, Field(pattern=r"^projects/[^/]+/topics/[^/]+$")]


class PubSubOutput(StreamOutput):
    """Writes a stream's predictions as messages of a Pub/Sub topic: objects of JSON, their keys as attribute
    `source_id`.
    """

    type: Literal["pubsub"]
    topic: TopicName = Field(description="Topic to publish to, projects/<project>/topics/<name>; it must exist.")
    attributes: bool = Field(True, description="Whether attributes and headers that came with a message are passed on.")
    ordering_key: Name | None = Field(
        None,
        description="The column whose rows of the same value Pub/Sub is to deliver in their order, if the subscription "
        "has message ordering.",
    )

    @property
    def passes_attributes(self) -> bool:
        """Tells whether what came with a message beside its payload is wanted."""
        return self.attributes

    def describe(self) -> str:
        """Returns the output in words."""
        return self.topic


class PubSubDeadLetters(Strict):
    """Writes a stream's dead letters as messages of a Pub/Sub topic, with the rows' keys as attribute `source_id`."""

    type: Literal["pubsub"]
    topic: TopicName = Field(description="Topic to publish to, projects/<project>/topics/<name>; it must exist.")
    max_fraction: Fraction = MAX_FRACTION
