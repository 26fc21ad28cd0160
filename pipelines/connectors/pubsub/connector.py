"""Connects a stream to Pub/Sub: a source and a sink."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from pipelines.config.errors import ConfigError
from pipelines.config.pubsub import PubSubOutput, PubSubSource
from pipelines.connectors.base import SinkConnector, SourceConnector
from pipelines.connectors.preflight import ANSWER_WITHIN_S
from pipelines.connectors.pubsub import client as pubsub
from pipelines.connectors.pubsub.client import looked_up, make_client
from pipelines.connectors.streaming.acknowledged_connector import AcknowledgedConnector
from pipelines.plan import KEY

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines.config.run import Batching
    from pipelines.connectors.streaming.acknowledged import AcknowledgedSource
    from pipelines.connectors.writing.row_writer import RowWriter
    from pipelines.plan import Plan


class PubSubSourceConnector(AcknowledgedConnector):
    """Reads a subscription, or a topic by a subscription of its own that is deleted at the end."""

    def __init__(self, source: PubSubSource) -> None:
        self._source = source
        self._stack = ExitStack()
        if source.subscription is not None:
            _check(source.subscription)
            self._name = source.subscription
        else:
            self._name = self._stack.enter_context(_temporary(str(source.topic)))

    def close(self) -> None:
        with self._stack:
            super().close()

    def source(self, batching: Batching, attributes: bool) -> AcknowledgedSource:
        from pipelines.connectors.pubsub import source as pubsub

        return pubsub.PubSubStream(
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


class DataflowPubSubConnector(SourceConnector):
    """Lets Dataflow read a subscription or a topic itself."""

    def __init__(self, source: PubSubSource, looks: bool) -> None:
        self._source = source
        if source.subscription is not None and looks:
            _check(source.subscription)

    def read(self, batching: Batching, attributes: bool = False) -> beam.PTransform:
        from pipelines.connectors.pubsub.dataflow_source import ReadPubSubNative

        return ReadPubSubNative(self._source, batching.max_rows, batching.max_wait_ms, attributes)


def _check(name: str) -> None:
    """Checks that a subscription is there."""

    def look() -> None:
        with make_client() as client:
            try:
                client.get_subscription(subscription=name, retry=None, timeout=ANSWER_WITHIN_S)
            except Exception as error:
                # Who may read a subscription may not always look at it.
                if type(error).__name__ != "PermissionDenied":
                    raise

    looked_up("source.subscription", name, look)


@contextmanager
def _temporary(topic: str) -> Iterator[str]:
    """Makes a subscription to a topic, and deletes it when the block ends."""
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

    looked_up("source.topic", topic, make)
    try:
        yield name
    finally:
        delete()


class PubSubSinkConnector(SinkConnector):
    """Publishes rows as messages of a topic."""

    def __init__(self, plan: Plan, output: PubSubOutput) -> None:
        self._plan = plan
        self._output = output

    def check(self) -> None:
        column = self._output.ordering_key
        known = {KEY, *self._plan.read.columns.names, *(each.name for each in self._plan.output)}
        if column is not None and column not in known:
            raise ConfigError(
                [f"output.ordering_key: no row has '{column}'; name a column that the model reads or that is written"]
            )
        pubsub.check_topic("output.topic", self._output.topic)

    def writer(self) -> RowWriter:
        from pipelines.connectors.pubsub.sink import PubSubRowWriter

        return PubSubRowWriter(self._plan, self._output)

    def describe(self) -> str:
        return self._output.describe()
