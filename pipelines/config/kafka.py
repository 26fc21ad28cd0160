"""Kafka in a config: source, output, dead letters, and how to reach the brokers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from typing_extensions import Self

from model.hosts import is_loopback
from pipelines.config.base import _TOO_MANY, Fraction, Name, StreamOutput, Strict
from pipelines.config.messages import MessageSource

Servers = Annotated[str, Field(pattern=r"^[^\s,/]+:\d+(,[^\s,/]+:\d+)*$")]
"""host:port, several with commas between them."""
KafkaTopic = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class KafkaSecurity(Strict):
    """How Kafka's brokers are talked to: encrypted or not, as whom. Secrets belong into ${VARIABLES}."""

    protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="ssl encrypts; sasl logs in with username and password."
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="Of logging in; PLAIN by default."
    )
    username: Name | None = Field(None, description="Of sasl.")
    password: SecretStr | None = Field(None, description="Of sasl.")
    ca_file: Name | None = Field(
        None, description="Of ssl: the certificates of those who vouch for the brokers; the system's by default."
    )
    certificate_file: Name | None = Field(None, description="Of ssl: this client's certificate, where brokers ask.")
    key_file: Name | None = Field(None, description="Of ssl: the key of that certificate.")
    key_password: SecretStr | None = Field(None, description="Of ssl: opens the key file.")

    def exposes(self, servers: str) -> bool:
        """Whether a password goes to brokers on other machines unencrypted."""
        hosts = [server.rpartition(":")[0].strip("[]") for server in servers.split(",")]
        return self.protocol == "sasl_plaintext" and not all(map(is_loopback, hosts))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        logs_in = self.protocol.startswith("sasl")
        if logs_in != (self.username is not None) or logs_in != (self.password is not None):
            raise ValueError("username and password: sasl_plaintext and sasl_ssl need both, others have none")
        if self.mechanism is not None and not logs_in:
            raise ValueError("mechanism: only sasl_plaintext and sasl_ssl have one")
        if not self.protocol.endswith("ssl") and any((self.ca_file, self.certificate_file, self.key_file)):
            raise ValueError("ca_file, certificate_file, key_file: only ssl and sasl_ssl have them")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file: give both or neither")
        return self


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
