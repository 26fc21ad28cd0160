"""Connects a stream to Kafka: a source and a sink."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.config.kafka import KafkaOutput, KafkaSource
from pipelines.connectors.base import SinkConnector
from pipelines.connectors.kafka import client as kafka_client
from pipelines.connectors.streaming.acknowledged_connector import AcknowledgedConnector

if TYPE_CHECKING:
    from pipelines.config.run import Batching
    from pipelines.connectors.streaming.acknowledged import AcknowledgedSource
    from pipelines.connectors.writing.row_writer import RowWriter
    from pipelines.plan import Plan


class KafkaSourceConnector(AcknowledgedConnector):
    """Reads topics as a member of a group."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source
        self._cluster = kafka_client.Cluster(source.bootstrap_servers, source.security)
        self._backlog: Callable[[], int | None] | None = None
        partitions = kafka_client.partitions_of("source", self._cluster, source.topics)
        kafka_client.begin("source", self._cluster, source.group, partitions, source.begins)

    def source(self, batching: Batching, attributes: bool) -> AcknowledgedSource:
        from pipelines.connectors.kafka import source as kafka

        self._backlog = kafka.backlog
        return kafka.KafkaStream(
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


class KafkaSinkConnector(SinkConnector):
    """Writes rows as messages of a topic."""

    def __init__(self, plan: Plan, output: KafkaOutput) -> None:
        self._plan = plan
        self._output = output
        self._cluster = kafka_client.Cluster(output.bootstrap_servers, output.security)
        self._partitions: list[kafka_client.Partition] = []

    def check(self) -> None:
        self._partitions = kafka_client.partitions_of("output", self._cluster, [self._output.topic])

    def written_keys(self, seconds: float) -> Iterator[tuple[float, pa.Array]]:
        from pipelines.connectors.kafka import written_keys

        yield from written_keys.written_keys("output.topic", self._cluster, self._partitions, seconds)

    def writer(self) -> RowWriter:
        from pipelines.connectors.kafka.sink import KafkaRowWriter

        return KafkaRowWriter(self._plan, self._output, self._cluster)

    def describe(self) -> str:
        return self._output.describe()
