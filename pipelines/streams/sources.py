"""What a stream reads, by its config: opened before anything slow is imported, so that mistakes show at once."""

from __future__ import annotations

import os
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from pipelines import files
from pipelines.config import ConfigError
from pipelines.source_config import PubSubSource, SimulatedSource
from pipelines.streams import subscription

if TYPE_CHECKING:
    import apache_beam as beam

    from pipelines.config import Batching

_MOST_BYTES = 256 << 20
"""Of a file of messages to repeat."""
_ANSWER_WITHIN_S = 9.0
_Answer = TypeVar("_Answer")


class Opened(ABC):
    """A source that can be read."""

    @abstractmethod
    def read(self, batching: Batching) -> beam.PTransform:
        """The transform that gives Messages."""

    def finish(self) -> int:
        """Ends reading; gives how many messages could not be acknowledged."""
        return 0


@contextmanager
def opened(source: SimulatedSource | PubSubSource) -> Iterator[Opened]:
    """Looks at what a config names, and holds it ready.

    Raises:
      ConfigError: it is not there, or cannot be read.
    """
    if isinstance(source, SimulatedSource):
        yield _Simulated(source)
        return
    if source.subscription is not None:
        _check(source.subscription)
        found = _PubSub(source, source.subscription)
        try:
            yield found
        finally:
            found.finish()
        return
    with _temporary(str(source.topic)) as made:
        found = _PubSub(source, made)
        try:
            yield found
        finally:
            found.finish()


class _Simulated(Opened):
    def __init__(self, source: SimulatedSource) -> None:
        self._source = source
        self._payloads = None if source.path is None else _lines(source.path)

    def read(self, batching: Batching) -> beam.PTransform:
        from pipelines.sources import simulated

        source = simulated.SimulatedSource(
            rate=self._source.rate,
            messages=self._source.messages,
            duration_s=self._source.duration_s,
            max_rows=batching.max_rows,
            max_wait_ms=batching.max_wait_ms,
            seed=self._source.seed,
        )
        return simulated.ReadSimulated(source, self._payloads)


class _PubSub(Opened):
    def __init__(self, source: PubSubSource, name: str) -> None:
        self._source = source
        self._name = name
        self._finish: Callable[[], int] | None = None

    def read(self, batching: Batching) -> beam.PTransform:
        from pipelines.sources import pubsub
        from pipelines.sources.unbounded import ReadUnbounded

        self._finish = pubsub.finish
        source = pubsub.PubSubSource(
            subscription=self._name,
            key=None if self._source.key else self._source.key_attribute or "",
            timestamp=self._source.timestamp_attribute,
            pullers=self._source.pullers,
            messages=self._source.messages,
            duration_s=self._source.duration_s,
            max_rows=batching.max_rows,
            max_wait_ms=batching.max_wait_ms,
        )
        return ReadUnbounded(source)

    def finish(self) -> int:
        return 0 if self._finish is None else self._finish()


def _lines(path: str) -> pa.Array:
    """The messages of a file, one a line."""
    try:
        content = files.read_range(path, 0, _MOST_BYTES)
    except OSError as error:
        raise ConfigError([f"source.path: {path} cannot be read: {error.strerror or error}"]) from None
    lines = [line for line in content.split(b"\n") if line.strip()]
    if not lines:
        raise ConfigError([f"source.path: {path} has no messages"])
    return pa.array(lines, pa.binary())


def _check(name: str) -> None:
    """Whether a subscription is there."""

    def look() -> None:
        with subscription.make_client() as client:
            try:
                client.get_subscription(subscription=name, retry=None, timeout=_ANSWER_WITHIN_S)
            except Exception as error:
                # Who may read a subscription may not always look at it.
                if type(error).__name__ != "PermissionDenied":
                    raise

    _asked("source.subscription", name, look)


@contextmanager
def _temporary(topic: str) -> Iterator[str]:
    """A subscription to a topic, for as long as it lasts."""
    project = topic.split("/")[1]
    name = f"projects/{project}/subscriptions/predict-{uuid.uuid4().hex[:12]}"

    def make() -> None:
        with subscription.make_client() as client:
            # If this process is killed, Pub/Sub deletes it after a day.
            request = {"name": name, "topic": topic, "expiration_policy": {"ttl": {"seconds": 86_400}}}
            client.create_subscription(request=request, retry=None, timeout=_ANSWER_WITHIN_S)

    def delete() -> None:
        with subscription.make_client() as client, suppress(Exception):
            client.delete_subscription(subscription=name, retry=None, timeout=_ANSWER_WITHIN_S)

    _asked("source.topic", topic, make)
    try:
        yield name
    finally:
        delete()


def _asked(where: str, name: str, ask: Callable[[], _Answer]) -> _Answer:
    """What Pub/Sub answers; looking for credentials and hosts, its client can take minutes."""
    os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")
    found: list[Any] = []

    def run() -> None:
        try:
            found.append((ask(), None))
        except Exception as error:  # of gRPC, of the client, of its credentials
            found.append((None, error))

    thread = threading.Thread(target=run, name="pubsub check", daemon=True)
    thread.start()
    thread.join(_ANSWER_WITHIN_S)
    if not found:
        raise ConfigError([f"{where}: {_host()} does not answer; check the network, or PUBSUB_EMULATOR_HOST"])
    answer, error = found[0]
    if error is not None:
        raise ConfigError([f"{where}: {_meaning(name, error)}"])
    return answer  # type: ignore[no-any-return]


def _meaning(name: str, error: Exception) -> str:
    kind = type(error).__name__
    if kind == "NotFound":
        return f"there is no {name}; check the project and the name, or create it"
    if kind == "DefaultCredentialsError":
        return (
            "no Google credentials were found; run gcloud auth application-default login, set "
            "GOOGLE_APPLICATION_CREDENTIALS, or PUBSUB_EMULATOR_HOST for an emulator"
        )
    if kind in ("ServiceUnavailable", "DeadlineExceeded"):
        return f"{_host()} cannot be reached; check the network, or PUBSUB_EMULATOR_HOST"
    return f"{name}: {kind}: {subscription.first_line(error)}"


def _host() -> str:
    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    return f"the Pub/Sub emulator at {emulator}" if emulator else "Pub/Sub"
