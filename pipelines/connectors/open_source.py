"""What a stream reads, by its config: opened before anything slow is imported, so that mistakes show at once."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines import storage
from pipelines.config.errors import ConfigError
from pipelines.config.kafka import KafkaSource
from pipelines.config.pubsub import PubSubSource
from pipelines.config.simulated import SimulatedSource
from pipelines.connectors.base import Opened
from pipelines.connectors.kafka import client as kafka_client
from pipelines.connectors.preflight import ANSWER_WITHIN_S
from pipelines.connectors.pubsub.client import asked, make_client

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines.config.run import Batching
    from pipelines.connectors.streaming.acknowledged import AcknowledgedSource

_MOST_BYTES = 256 << 20
"""Of a file of messages to repeat."""


@contextmanager
def opened(source: SimulatedSource | PubSubSource | KafkaSource) -> Iterator[Opened]:
    """Looks at what a config names, and holds it ready.

    Raises:
      ConfigError: it is not there, or cannot be read.
    """
    with ExitStack() as stack:
        if isinstance(source, SimulatedSource):
            found: Opened = _Simulated(source)
        elif isinstance(source, KafkaSource):
            found = _Kafka(source)
        elif source.subscription is not None:
            _check(source.subscription)
            found = _PubSub(source, source.subscription)
        else:
            found = _PubSub(source, stack.enter_context(_temporary(str(source.topic))))
        stack.callback(found.finish)
        yield found


class _Simulated(Opened):
    def __init__(self, source: SimulatedSource) -> None:
        self._source = source
        self._payloads = None if source.path is None else _lines(source.path)

    def read(self, batching: Batching, attributes: bool = False) -> beam.PTransform:
        from pipelines.connectors.simulated import source as simulated

        source = simulated.SimulatedSource(
            rate=self._source.rate,
            messages=self._source.messages,
            duration_s=self._source.duration_s,
            max_rows=batching.pulled_rows,
            max_wait_ms=batching.pulled_wait_ms,
            seed=self._source.seed,
        )
        return simulated.ReadSimulated(source, self._payloads, bundle_s=batching.bundle_s)


class _Acknowledged(Opened):
    """A source whose messages are acknowledged when what they became is durable."""

    _finish: Callable[[bool], int] | None = None

    def read(self, batching: Batching, attributes: bool = False) -> beam.PTransform:
        from pipelines.connectors.streaming import acknowledged
        from pipelines.connectors.streaming.unbounded import ReadUnbounded

        self._finish = acknowledged.finish
        return ReadUnbounded(self.source(batching, attributes), batching.bundle_s)

    @abstractmethod
    def source(self, batching: Batching, attributes: bool) -> AcknowledgedSource:
        """What is read, by the arguments of `read`."""

    def finish(self, all_is_done: bool = False) -> int:
        return 0 if self._finish is None else self._finish(all_is_done)


class _PubSub(_Acknowledged):
    def __init__(self, source: PubSubSource, name: str) -> None:
        self._source = source
        self._name = name

    def source(self, batching: Batching, attributes: bool) -> AcknowledgedSource:
        from pipelines.connectors.pubsub import source as pubsub

        return pubsub.PubSubSource(
            subscription=self._name,
            key=None if self._source.key else self._source.key_attribute or "",
            timestamp=self._source.timestamp_attribute,
            pullers=self._source.pullers,
            attributes=attributes,
            messages=self._source.messages,
            duration_s=self._source.duration_s,
            max_rows=batching.pulled_rows,
            max_wait_ms=batching.pulled_wait_ms,
        )


class _Kafka(_Acknowledged):
    def __init__(self, source: KafkaSource) -> None:
        self._source = source
        self._cluster = kafka_client.Cluster(source.bootstrap_servers, source.security)
        self._backlog: Callable[[], int | None] | None = None
        partitions = kafka_client.partitions_of("source", self._cluster, source.topics)
        kafka_client.begin("source", self._cluster, source.group, partitions, source.begins)

    def source(self, batching: Batching, attributes: bool) -> AcknowledgedSource:
        from pipelines.connectors.kafka import source as kafka

        self._backlog = kafka.backlog
        return kafka.KafkaSource(
            cluster=self._cluster,
            topics=tuple(self._source.topics),
            group=self._source.group,
            keys=self._source.key is None,
            headers=attributes,
            messages=self._source.messages,
            duration_s=self._source.duration_s,
            max_rows=batching.pulled_rows,
            max_wait_ms=batching.pulled_wait_ms,
        )

    def backlog(self) -> int | None:
        return None if self._backlog is None else self._backlog()


def _lines(path: str) -> pa.Array:
    """The messages of a file, one a line."""
    try:
        content = storage.read_range(path, 0, _MOST_BYTES)
    except OSError as error:
        raise ConfigError([f"source.path: {path} cannot be read: {error.strerror or error}"]) from None
    lines = [line for line in content.split(b"\n") if line.strip()]
    if not lines:
        raise ConfigError([f"source.path: {path} has no messages"])
    return pa.array(lines, pa.binary())


def _check(name: str) -> None:
    """Whether a subscription is there."""

    def look() -> None:
        with make_client() as client:
            try:
                client.get_subscription(subscription=name, retry=None, timeout=ANSWER_WITHIN_S)
            except Exception as error:
                # Who may read a subscription may not always look at it.
                if type(error).__name__ != "PermissionDenied":
                    raise

    asked("source.subscription", name, look)


@contextmanager
def _temporary(topic: str) -> Iterator[str]:
    """A subscription to a topic, for as long as it lasts."""
    project = topic.split("/")[1]
    name = f"projects/{project}/subscriptions/predict-{uuid.uuid4().hex[:12]}"

    def make() -> None:
        with make_client() as client:
            # If this process is killed, Pub/Sub deletes it after a day.
            request = {"name": name, "topic": topic, "expiration_policy": {"ttl": {"seconds": 86_400}}}
            client.create_subscription(request=request, retry=None, timeout=ANSWER_WITHIN_S)

    def delete() -> None:
        with make_client() as client, suppress(Exception):
            client.delete_subscription(subscription=name, retry=None, timeout=ANSWER_WITHIN_S)

    asked("source.topic", topic, make)
    try:
        yield name
    finally:
        delete()
