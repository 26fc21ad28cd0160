"""The part of a config that says how to reach Kafka."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator
from typing_extensions import Self

from model.hosts import is_loopback
from pipelines.variants import Name, Strict

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
