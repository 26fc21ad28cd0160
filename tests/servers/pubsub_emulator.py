"""Google's own in-memory Pub/Sub, as a process: built with Go on first use, into .tools."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports.grpc import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports.grpc import SubscriberGrpcTransport

from tests.servers import tools
from tests.support import processes

_SOURCE = Path(__file__).resolve().parent / "pubsub"
_MOST = 1_000

TOPIC = "projects/test-project/topics/births"
SUBSCRIPTION = "projects/test-project/subscriptions/births"


class Counts(NamedTuple):
    """How often a message was delivered, and acknowledged."""

    deliveries: int
    acks: int


class Emulator:
    """An emulator with a topic and a subscription to it.

    Attributes:
      host: for PUBSUB_EMULATOR_HOST.
      process: the emulator's.
    """

    def __init__(self, host: str, counts: str, process: subprocess.Popen[str]) -> None:
        self.host = host
        self.process = process
        self._counts = f"http://{counts}"
        self._channel = grpc.insecure_channel(host, options=[("grpc.max_receive_message_length", -1)])
        self._publisher = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        self.subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))
        self._publisher.create_topic(name=TOPIC)
        # The shortest that Pub/Sub allows.
        self.subscriber.create_subscription(request={"name": SUBSCRIPTION, "topic": TOPIC, "ack_deadline_seconds": 10})

    def add(self, name: str) -> tuple[str, str]:
        """Makes a topic and an ordered subscription to it; gives their full names."""
        topic, subscription = f"projects/test-project/topics/{name}", f"projects/test-project/subscriptions/{name}"
        self._publisher.create_topic(name=topic)
        self.subscriber.create_subscription(
            request={"name": subscription, "topic": topic, "enable_message_ordering": True}
        )
        return topic, subscription

    def taken(self, subscription: str) -> list[Any]:
        """All messages of a subscription, acknowledged: PubsubMessages."""
        found: list[Any] = []
        while got := self.subscriber.pull(subscription=subscription, max_messages=_MOST).received_messages:
            self.subscriber.acknowledge(subscription=subscription, ack_ids=[each.ack_id for each in got])
            found += [each.message for each in got]
        return found

    def publish(self, payloads: Sequence[bytes], attributes: Sequence[Mapping[str, str]] = ()) -> list[str]:
        """Publishes messages; gives their ids."""
        messages = [{"data": payload} for payload in payloads]
        for message, given in zip(messages, attributes, strict=False):
            message["attributes"] = dict(given)  # type: ignore[assignment]
        ids: list[str] = []
        for first in range(0, len(messages), _MOST):
            request: dict[str, Any] = {"topic": TOPIC, "messages": messages[first : first + _MOST]}
            ids += self._publisher.publish(request=request).message_ids
        return ids

    def counts(self) -> dict[str, Counts]:
        """What became of each message published, by its id."""
        found = httpx.get(self._counts, timeout=30, trust_env=False).json()
        return {id: Counts(**each) for id, each in found.items()}

    def acknowledged(self) -> int:
        """How many messages were."""
        return sum(each.acks > 0 for each in self.counts().values())

    def wait_for_acknowledged(self, wanted: int, within_s: float = 30) -> None:
        """Until at least so many messages are."""
        until = time.monotonic() + within_s
        while (found := self.acknowledged()) < wanted:
            assert time.monotonic() < until, f"{found} acknowledged, not {wanted}"
            time.sleep(0.05)

    def subscriptions(self) -> list[str]:
        """Names of all."""
        return [each.name for each in self.subscriber.list_subscriptions(project="projects/test-project")]

    def close(self) -> None:
        """Disconnects."""
        self._channel.close()


@contextlib.contextmanager
def pubsub_emulator() -> Iterator[Emulator]:
    """An emulator that ends with the block, or with this process: its standard input does then."""
    process = processes.start(
        [tools.built("pubsub-emulator", _SOURCE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        emulator = Emulator(ready["pubsub"], ready["counts"], process)
        try:
            yield emulator
        finally:
            emulator.close()
    finally:
        process.kill()
        process.communicate()
