"""Sends messages to a Kafka topic: each is there when its answer has come, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipelines.connectors.kafka.client import Cluster, first_words, largest_message
from pipelines.connectors.retry import wait_for_service

Headers = list[tuple[str, str | bytes | None]]
_Sent = tuple[bytes, bytes, int, Headers | None]
_FLUSH_S = 5.0
_OF_THE_MESSAGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP)


class TopicRefusesError(RuntimeError):
    """Raised when the topic takes no messages, and waiting does not help."""


class NoAnswerError(RuntimeError):
    """Raised when messages are on their way, and the brokers have not said yet that they have them."""


class KafkaTopic:
    """Writes to a topic of Kafka, from one thread at a time.

    The client tries again for as long as it takes, and numbers what it sends: brokers drop what they have already.

    Args:
      cluster: the brokers.
      name: of the topic.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self._most_bytes = largest_message(cluster, name)
        self._errors: list[tuple[KafkaError, bytes, bytes]] = []
        self._heard = "no answer yet"
        settings = {
            "enable.idempotence": True,
            "acks": "all",
            # Tried again without end: what is given up might be there nevertheless, and would be written twice.
            "message.timeout.ms": 0,
            "message.max.bytes": self._most_bytes,
            "linger.ms": 2,
            # The partition of a key as Java's clients choose it.
            "partitioner": "murmur2_random",
            # Each answer asked for costs as much as a message.
            "delivery.report.only.error": True,
            "on_delivery": self._failed,
            "error_cb": self._hear,
        }
        self._producer = Producer({**cluster.settings(), **settings})

    def send(
        self,
        keys: Sequence[bytes],
        values: Sequence[bytes],
        times_ms: Sequence[int],
        headers: Sequence[Headers | None],
    ) -> Callable[[], dict[int, str]]:
        """Sends messages: they are on their way when it returns. The next are sent when these are answered for.

        Args:
          keys: of the messages.
          values: their payloads.
          times_ms: milliseconds since the epoch.
          headers: of each, if it has any.

        Returns:
          Waits until the brokers have them, on as many disks as the topic wants; gives why messages are refused, by
          their index. All others are written.

        Raises, as what is returned does:
          TopicRefusesError: none can be written.
          NoAnswerError: the stream is to stop, and the brokers are away.
        """
        columns = keys, values, times_ms, headers
        self._begin(zip(*columns, strict=True))
        return partial(self._answers, columns)

    def _answers(self, columns: tuple[Sequence[Any], ...]) -> dict[int, str]:
        refused = self._refused()
        if not refused:
            return {}
        # Brokers refuse what came together because of one of them.
        found: dict[int, str] = {}
        for index, message in enumerate(zip(*columns, strict=True)):
            if message[:2] in refused:
                self._begin([message])
                for reason in self._refused().values():
                    found[index] = reason
        return found

    def _begin(self, messages: Iterable[_Sent]) -> None:
        """Hands messages to the client."""
        self._errors.clear()
        produce, name = self._producer.produce, self.name
        for key, value, time_ms, given in messages:
            while True:
                try:
                    produce(name, value, key, -1, None, None, time_ms, given)
                except BufferError:
                    wait_for_service(self._make_room, _passes, f"topic {name}")
                    continue
                except KafkaException as raised:
                    self._errors.append((raised.args[0], key, value))
                break

    def _refused(self) -> dict[tuple[bytes, bytes], str]:
        """Waits for the answers; gives the keys and values of messages refused, and why."""
        wait_for_service(self._flush, _passes, f"topic {self.name}")
        for error, *_ in self._errors:
            if error.code() not in _OF_THE_MESSAGE:
                raise TopicRefusesError(f"topic {self.name}: {first_words(error)}")
        return {(key, value): self._reason(error) for error, key, value in self._errors}

    def _failed(self, error: KafkaError, message: Message) -> None:
        self._errors.append((error, message.key() or b"", message.value() or b""))

    def _make_room(self) -> None:
        before = len(self._producer)
        self._producer.poll(_FLUSH_S)
        if len(self._producer) >= before:
            raise NoAnswerError(self._heard)

    def _flush(self) -> None:
        if self._producer.flush(_FLUSH_S):
            raise NoAnswerError(self._heard)

    def _reason(self, error: KafkaError) -> str:
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return f"larger than the {self._most_bytes:,} bytes that a message of {self.name} may have"
        return first_words(error)

    def _hear(self, error: KafkaError) -> None:
        self._heard = first_words(error)

    def close(self) -> None:
        """Forgets what could not be written."""
        self._producer.purge()
        self._producer.flush(_FLUSH_S)


def _passes(error: BaseException) -> bool:
    """Whether waiting helps."""
    return isinstance(error, NoAnswerError)
