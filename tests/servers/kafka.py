"""Runs Apache Kafka, one real broker: its jars are brought by Maven on first use, into .tools/kafka."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from tests.servers import tools
from tests.support import processes

_POM = Path(__file__).resolve().parent / "kafka" / "pom.xml"
_READY_WITHIN_S = 60.0
_ANSWER_WITHIN_S = 30.0
_JAVA = ["java", "-Xmx384m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]

USER, PASSWORD = "births", "let-me-in"

Record = tuple[bytes | None, bytes | None]
"""Key and value."""

_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.dirs={folder}/data
"""


class Broker:
    """A broker that is ready.

    Attributes:
      address: for bootstrap_servers.
      sasl_address: the same, for clients that give USER and PASSWORD (SASL_PLAINTEXT, PLAIN).
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        plain, sasl, controller = tools.free_ports(3)
        self.address = f"127.0.0.1:{plain}"
        self.sasl_address = f"127.0.0.1:{sasl}"
        text = _SETTINGS.format(
            plain=plain, sasl=sasl, controller=controller, folder=folder, user=USER, password=PASSWORD
        )
        self._settings = Path(folder) / "server.properties"
        self._settings.write_text(text)
        self._java = [*_JAVA, "-cp", f"{tools.jars('kafka', _POM, '46 MB')}/*"]
        format = [*self._java, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(self._settings)]
        processes.run(format, check=True, capture_output=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._asking: dict[str, Consumer] = {}
        self.start()
        self._admin = AdminClient(self._client())
        self._producer = Producer({**self._client(), "linger.ms": 5, "message.max.bytes": 10_000_000})

    def start(self) -> None:
        """Starts it, or starts it again, with all that it had; waits until it answers."""
        with open(f"{self._folder}/log", "ab") as log:
            self._process = processes.start(
                tools.guarded([*self._java, "kafka.Kafka", str(self._settings)]),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )
        until = time.monotonic() + _READY_WITHIN_S
        admin = AdminClient(self._client())
        while True:
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=1).brokers:
                    return
            ended = self._process.poll() is not None
            if ended or time.monotonic() > until:
                log = Path(self._folder, "log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"Kafka {'ended' if ended else 'is not ready'}: {log}")

    def kill(self) -> None:
        """Ends it at once; `start` starts it again."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def pause(self) -> None:
        """It stays, and does not answer."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It answers again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def create_topic(self, partitions: int = 1, name: str | None = None, **settings: Any) -> str:
        """A new topic, ready for use; gives its name. In settings, _ stands for a dot."""
        name = name or f"topic-{uuid.uuid4().hex[:12]}"
        config = {key.replace("_", "."): str(value) for key, value in settings.items()}
        [made] = self._admin.create_topics([NewTopic(name, partitions, 1, config=config)]).values()
        made.result(_ANSWER_WITHIN_S)
        self.size(name)
        return name

    def delete_topic(self, name: str) -> None:
        """Removes a topic."""
        [gone] = self._admin.delete_topics([name]).values()
        gone.result(_ANSWER_WITHIN_S)

    def produce(
        self,
        topic: str,
        records: Iterable[Record | bytes],
        partition: int | None = None,
        headers: Sequence[list[tuple[str, bytes | None]]] = (),
    ) -> None:
        """Writes records: keys and values, or values alone.

        Args:
          topic: where to.
          records: what.
          partition: into that one; by their keys, or anywhere, by default.
          headers: of the records, if any.
        """
        errors: list[Any] = []
        more: dict[str, Any] = {} if partition is None else {"partition": partition}
        for n, record in enumerate(records):
            key, value = (None, record) if isinstance(record, bytes) else record
            if headers:
                more["headers"] = headers[n]
            while True:
                try:
                    self._producer.produce(topic, value, key, on_delivery=lambda e, _: e and errors.append(e), **more)
                    break
                except BufferError:
                    self._producer.poll(0.1)
        left = self._producer.flush(_ANSWER_WITHIN_S)
        assert (left, errors) == (0, [])

    def consume_all(self, topic: str) -> list[Message]:
        """All that is in a topic now, partition by partition."""
        found: list[Message] = []
        settings = {**self._client(), "group.id": "tests", "enable.auto.commit": False, "enable.partition.eof": True}
        consumer = Consumer(settings)
        try:
            partitions = self.partitions(topic)
            consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
            ended = 0
            until = time.monotonic() + _ANSWER_WITHIN_S
            while ended < len(partitions):
                assert time.monotonic() < until, f"{topic} cannot be read"
                for message in consumer.consume(10_000, 0.2):
                    if message.error() is None:
                        found.append(message)
                    else:
                        assert message.error().code() == -191, message.error()
                        ended += 1
        finally:
            consumer.close()
        return sorted(found, key=lambda message: (message.partition(), message.offset()))

    def size(self, topic: str) -> int:
        """How many messages are in a topic now."""
        consumer = Consumer({**self._client(), "group.id": "tests"})
        until = time.monotonic() + _ANSWER_WITHIN_S
        try:
            while True:
                try:
                    parts = [TopicPartition(topic, number) for number in self.partitions(topic)]
                    ends = [consumer.get_watermark_offsets(part, timeout=3) for part in parts]
                    if ends:
                        return sum(high - low for low, high in ends)
                except KafkaException:
                    # For a while after a topic was made, or the broker has started, its partitions have no leader.
                    if time.monotonic() > until:
                        raise
                assert time.monotonic() < until, f"{topic} has no partitions"
                time.sleep(0.1)
        finally:
            consumer.close()

    def topics(self) -> list[str]:
        """Names of all."""
        return list(self._admin.list_topics(timeout=_ANSWER_WITHIN_S).topics)

    def partitions(self, topic: str) -> list[int]:
        """Numbers of a topic's partitions."""
        return sorted(self._admin.list_topics(topic, _ANSWER_WITHIN_S).topics[topic].partitions)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """How far a group has got: partition -> number of the next message; without those it has not begun."""
        # The admin client's list_consumer_group_offsets ends this process if the broker has just been started.
        if group not in self._asking:
            self._asking[group] = Consumer({**self._client(), "group.id": group})
        asking = self._asking[group]
        partitions = [TopicPartition(topic, number) for number in self.partitions(topic)]
        until = time.monotonic() + _ANSWER_WITHIN_S
        while True:
            try:
                found = asking.committed(partitions, timeout=3)
                return {each.partition: each.offset for each in found if each.offset >= 0}
            except KafkaException:
                # For a while after it has started, the broker knows of no group.
                assert time.monotonic() < until
                time.sleep(0.1)

    def wait_for_committed(self, group: str, topic: str, messages: int, within_s: float = 60) -> None:
        """Until a group has committed so many messages of a topic, over all partitions."""
        until = time.monotonic() + within_s
        while (found := sum(self.committed(group, topic).values())) < messages:
            assert time.monotonic() < until, f"{found} committed, not {messages}"
            time.sleep(0.05)

    def members(self, group: str) -> int:
        """How many consumers a group has."""
        [asked] = self._admin.describe_consumer_groups([group]).values()
        return len(asked.result(_ANSWER_WITHIN_S).members)

    def _client(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.address, "reconnect.backoff.max.ms": 500, "log_level": 0}


@contextlib.contextmanager
def kafka_broker() -> Iterator[Broker]:
    """A broker that ends with the block, or with this process."""
    tools.needs("the Kafka broker", "java")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        broker = Broker(folder)
        try:
            yield broker
        finally:
            broker.kill()


def _cluster_id() -> str:
    # One that begins with - would be taken for an option.
    return base64.b64encode(uuid.uuid4().bytes, b"ab").decode().rstrip("=")
