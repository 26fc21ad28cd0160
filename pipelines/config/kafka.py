"""Defines Kafka in a config: source, output, dead letters, and how to reach the brokers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from typing_extensions import Self

from model.hosts import is_loopback
from pipelines.config.base import MAX_FRACTION, Fraction, Name, StreamOutput, Strict
from pipelines.config.messages import MessageSource
from pipelines.config.paths import LocalPath

Servers = Annotated[str, Field(pattern=r"^[^\s,/]+:\d+(,[^\s,/]+:\d+)*$")]
"""host:port, several with commas between them."""
KafkaTopic = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class KafkaSecurity(Strict):
    """Says how to connect to Kafka's brokers: encrypted or not, and as whom. Secrets belong into ${VARIABLES}."""

    protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="ssl encrypts; sasl logs in with username and password."
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="SASL mechanism to log in with; PLAIN by default."
    )
    username: Name | None = Field(None, description="User to log in as, for sasl.")
    password: SecretStr | None = Field(None, description="Password of username, for sasl.")
    ca_file: LocalPath | None = Field(
        None,
        description="File of certificates that sign the brokers' certificates, in PEM, for ssl; the system's by "
        "default.",
    )
    certificate_file: LocalPath | None = Field(
        None, description="File with this client's certificate, in PEM, for brokers that require one."
    )
    key_file: LocalPath | None = Field(None, description="File with the private key of certificate_file, in PEM.")
    key_password: SecretStr | None = Field(None, description="Password of key_file.")

    def exposes(self, servers: str) -> bool:
        """Tells whether a password goes to brokers on other machines unencrypted."""
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
    """Reads messages of Kafka topics, each committed when its prediction is durable. Only for streams."""

    type: Literal["kafka"]
    bootstrap_servers: Servers = Field(description="Brokers to connect to first: host:port, separated by commas.")
    topic: KafkaTopic | Annotated[list[KafkaTopic], Field(min_length=1)] = Field(
        description="Topic to read, or a list of topics."
    )
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
        """Returns all of them."""
        return [self.topic] if isinstance(self.topic, str) else self.topic

    @property
    def begins(self) -> str | int:
        """Returns where a new group begins to read: "earliest", "latest", or milliseconds since the epoch."""
        if self.start in ("earliest", "latest"):
            return self.start
        return int(datetime.fromisoformat(self.start.replace("Z", "+00:00")).timestamp() * 1000)

    def describe(self) -> str:
        """Returns the source in words."""
        return f"messages of Kafka's {' and '.join(self.topics)}, as group {self.group}"


class KafkaOutput(StreamOutput):
    """Writes a stream's predictions as messages of a Kafka topic: objects of JSON, with their keys as record keys."""

    type: Literal["kafka"]
    bootstrap_servers: Servers = Field(description="Brokers to connect to first: host:port, separated by commas.")
    topic: KafkaTopic = Field(description="Topic to write to; it must exist.")
    security: KafkaSecurity = KafkaSecurity.model_construct()
    headers: bool = Field(
        True,
        description="Whether headers and attributes that came with a message are passed on, with the row's key as "
        "`source_id`.",
    )

    @property
    def passes_attributes(self) -> bool:
        """Tells whether what came with a message beside its payload is wanted."""
        return self.headers

    def describe(self) -> str:
        """Returns the output in words."""
        return f"topic {self.topic} at {self.bootstrap_servers}"


class KafkaDeadLetters(Strict):
    """Writes a stream's dead letters as messages of a Kafka topic, with the rows' keys."""

    type: Literal["kafka"]
    bootstrap_servers: Servers = Field(description="Brokers to connect to first: host:port, separated by commas.")
    topic: KafkaTopic = Field(description="Topic to write to; it must exist.")
    security: KafkaSecurity = KafkaSecurity.model_validate({})
    max_fraction: Fraction = MAX_FRACTION

    def describe(self) -> str:
        """Returns where they are, in words."""
        return f"topic {self.topic} at {self.bootstrap_servers}"
