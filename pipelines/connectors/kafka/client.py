"""Makes Kafka's client with its settings, and looks a topic up before a run starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference.columns.bound import did_you_mean
from model.secrets import keep, masked
from pipelines.config.errors import ConfigError
from pipelines.config.kafka import KafkaSecurity

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, TopicPartition

ANSWER_WITHIN_S = 4.5
_ASK_FOR_S = 1.5
_AGAIN_S = 0.1
_LIMIT_WITHIN_S = 15.0
_FINAL = (24, 25, 29, 30)
"""Codes of Kafka's protocol: the group's name is none, it has other members, this user may not read topic or group."""
_USUALLY_LARGEST = 1_000_000
_FILES = ("ca_file", "certificate_file", "key_file")
Partition = tuple[str, int]
"""A topic, and the number of one of its partitions."""


@dataclass(frozen=True)
class Cluster:
    """Brokers, and how they are talked to.

    Attributes:
      servers: host:port, several with commas between them.
      security: see there; its secrets are not shown.
    """

    servers: str
    security: KafkaSecurity

    def settings(self) -> dict[str, Any]:
        """Returns the settings that each of the client's classes takes."""
        security = self.security
        found: dict[str, Any] = {
            "bootstrap.servers": self.servers,
            "security.protocol": security.protocol,
            "client.id": "predict",
            # Errors come through callbacks; on standard error the client would say them once a second.
            "log_level": 0,
            "reconnect.backoff.max.ms": 2_000,
        }
        if security.username is not None and security.password is not None:
            keep(security.password.get_secret_value())
            found |= {
                "sasl.mechanism": security.mechanism or "PLAIN",
                "sasl.username": security.username,
                "sasl.password": security.password.get_secret_value(),
            }
        if security.key_password is not None:
            keep(security.key_password.get_secret_value())
        for name, path in (
            ("ssl.ca.location", security.ca_file),
            ("ssl.certificate.location", security.certificate_file),
            ("ssl.key.location", security.key_file),
            ("ssl.key.password", security.key_password and security.key_password.get_secret_value()),
        ):
            if path is not None:
                found[name] = path
        return found


def partitions_of(where: str, cluster: Cluster, topics: Sequence[str]) -> list[Partition]:
    """Returns the partitions of topics.

    Args:
      where: the part of the config that names the cluster.
      cluster: the brokers to call.
      topics: which.

    Raises:
      ConfigError: they are not there, or the brokers do not answer, or not to us.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

    _check_files(where, cluster.security)
    said: list[KafkaError] = []
    try:
        settings: dict[str, Any] = {**cluster.settings(), "error_cb": said.append}
        client = AdminClient(settings)
    except KafkaException as error:
        raise ConfigError([f"{where}.security: {first_words(error.args[0])}; check the files that it names"]) from None
    until = time.monotonic() + ANSWER_WITHIN_S
    while True:
        try:
            # Of all topics: asked for one, brokers may create it.
            found = client.list_topics(timeout=_ASK_FOR_S).topics
            break
        except KafkaException:
            # The reasons come through the callback.
            client.poll(0)
        decisive = [error for error in said if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)]
        if decisive or time.monotonic() >= until:
            raise ConfigError([_unreachable(where, cluster, said)])
    problems = [
        f"{where}.topic: there is no topic {topic!r}{did_you_mean(topic, _visible(found))}; create it, or check its "
        "name and whether this user may see it"
        for topic in topics
        if topic not in found
    ]
    if problems:
        raise ConfigError(problems)
    return [(topic, number) for topic in topics for number in sorted(found[topic].partitions)]


def largest_message(cluster: Cluster, topic: str) -> int:
    """Returns the most bytes that a message of a topic may have; Kafka's default where this user may not ask."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        client = AdminClient(cluster.settings())
        [described] = client.describe_configs([resource]).values()
        found = int(described.result(_LIMIT_WITHIN_S)["max.message.bytes"].value)
    except (KafkaException, TimeoutError, KeyError):
        return _USUALLY_LARGEST
    # What the client takes for a setting.
    return min(max(found, 1_000), 1_000_000_000)


def _visible(topics: Any) -> list[str]:
    return sorted(name for name in topics if not name.startswith("__"))


def _check_files(where: str, security: KafkaSecurity) -> None:
    problems = []
    for name in _FILES:
        path = getattr(security, name)
        if path is None:
            continue
        try:
            with open(path, "rb") as file:
                file.read(1)
        except OSError as error:
            problems.append(f"{where}.security.{name}: {path} cannot be read: {error.strerror or error}")
    if problems:
        raise ConfigError(problems)


def _unreachable(where: str, cluster: Cluster, errors: Sequence[KafkaError]) -> str:
    """What the most telling of some errors means."""
    from confluent_kafka import KafkaError as Error

    first = {error.code(): first_words(error) for error in reversed(errors)}
    if Error._AUTHENTICATION in first:
        said = first[Error._AUTHENTICATION]
        return f"{where}.security: {cluster.servers} refuses these credentials: {said}; check username and password"
    # What is said of one broker tells more than that there is none.
    said = next((first[code] for code in (Error._SSL, Error._RESOLVE, Error._TRANSPORT) if code in first), "")
    if Error._SSL in first or (cluster.security.protocol in ("ssl", "sasl_ssl") and "SSL" in said):
        return f"{where}.security: no TLS with {cluster.servers}: {said}; check protocol and ca_file"
    return (
        f"{where}.bootstrap_servers: no broker at {cluster.servers} answers: {said or 'it is silent'}; check the "
        "address, the network and security.protocol"
    )


def first_words(error: KafkaError) -> str:
    """Returns what an error says, on one line, without the names of the client's own threads and connections."""
    text = " ".join(masked(str(error.str())).split())
    # "sasl_plaintext://127.0.0.1:9092/bootstrap: what it is about: reason (after 3ms in state AUTH_REQ)"
    text = text.rpartition("/bootstrap: ")[2].split(" (after ")[0]
    return text[:300]


def begin(where: str, cluster: Cluster, group: str, partitions: Sequence[Partition], start: str | int) -> None:
    """Sets where a group begins that has not committed anything; one that has goes on from there.

    Without it, a stream that begins at the latest messages and is killed before it commits would begin anew at those
    that are the latest then.

    Args:
      where: the part of the config that names the group.
      cluster: the brokers to call.
      group: of consumers.
      partitions: what it reads.
      start: "earliest", "latest", or milliseconds since the epoch.

    Raises:
      ConfigError: this user may not read as that group, or others do so already.
    """
    from confluent_kafka import Consumer, KafkaError, KafkaException

    consumer = Consumer({**cluster.settings(), "group.id": group, "enable.auto.commit": False})
    until = time.monotonic() + ANSWER_WITHIN_S
    try:
        while True:
            try:
                _begin(consumer, partitions, start)
                return
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
            # For a while after brokers have started, none of them keeps the group.
            if error.code() in _FINAL or time.monotonic() >= until:
                break
            time.sleep(_AGAIN_S)
    finally:
        consumer.close()
    if error.code() == KafkaError.UNKNOWN_MEMBER_ID:
        hint = "others read with it already, and none of this topic; give this stream a group of its own"
    else:
        hint = "check the name, and whether this user may use it"
    raise ConfigError([f"{where}.group: {group}: {first_words(error)}; {hint}"])


def _begin(consumer: Any, partitions: Sequence[Partition], start: str | int) -> None:
    from confluent_kafka import KafkaException, TopicPartition

    wanted = [TopicPartition(topic, number) for topic, number in partitions]

    def has_begun() -> bool:
        return any(each.offset >= 0 for each in consumer.committed(wanted, timeout=_ASK_FOR_S))

    if has_begun() or start == "earliest":
        return
    try:
        consumer.commit(offsets=_first(consumer, partitions, start), asynchronous=False)
    except KafkaException:
        # Others of the group are running: one that began with us has set the same start.
        if not has_begun():
            raise


def _first(consumer: Any, partitions: Sequence[Partition], start: str | int) -> list[TopicPartition]:
    """Where partitions begin."""
    from confluent_kafka import TopicPartition

    if isinstance(start, str):
        found = []
    else:
        wanted = [TopicPartition(topic, number, start) for topic, number in partitions]
        found = consumer.offsets_for_times(wanted, timeout=ANSWER_WITHIN_S)
    known = {(each.topic, each.partition): each.offset for each in found if each.offset >= 0}
    first = []
    for topic, number in partitions:
        offset = known.get((topic, number))
        if offset is None:
            # Nothing so late is there yet.
            _, offset = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER_WITHIN_S)
        first.append(TopicPartition(topic, number, offset))
    return first
