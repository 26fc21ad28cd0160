"""Watches whether Kafka's brokers are there: errors that the client tells of, and a look at them now and then."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inference.log_throttle import LogThrottle
from pipelines.connectors.kafka.client import Cluster

if TYPE_CHECKING:
    from confluent_kafka import KafkaError
    from confluent_kafka.admin import AdminClient

_WARN_EVERY_S = 10.0
_PROBE_S = 1.0
_PROBES_EVERY_S = 3.0

_LOG = logging.getLogger(__name__)


class BrokerHealth:
    """Knows whether the brokers of a consumer answer, and warns while they do not.

    Args:
      cluster: the brokers.
      topics: the topics that the consumer reads.
      group: the consumer group.

    Attributes:
      final_error: the error after which the topics cannot be read, and waiting does not help; empty before.
    """

    def __init__(self, cluster: Cluster, topics: Sequence[str], group: str) -> None:
        self._cluster = cluster
        self._topics = topics
        self._group = group
        self.final_error = ""
        self._away = False
        self._heard = self._looked = 0.0
        self._is_closed = False
        self._probe: AdminClient | None = None
        # By what they say: that brokers are away is not kept back because a commit failed just before.
        self._warnings: defaultdict[str, LogThrottle] = defaultdict(lambda: LogThrottle(_WARN_EVERY_S))

    def heard_from(self) -> None:
        """Notes that the brokers have just answered."""
        self._away = False
        self._heard = time.monotonic()

    def hear(self, error: KafkaError) -> None:
        """Takes an error that came by itself; the client calls it while it polls."""
        from confluent_kafka import KafkaError as Error

        final = (
            Error.TOPIC_AUTHORIZATION_FAILED,
            Error.GROUP_AUTHORIZATION_FAILED,
            Error.INCONSISTENT_GROUP_PROTOCOL,
            Error._FATAL,
        )
        if error.code() in final:
            self.final_error = f"{', '.join(self._topics)}, group {self._group}: {error.str()}"
        elif error.code() in (Error._ALL_BROKERS_DOWN, Error._AUTHENTICATION, Error._SSL):
            self._away = True

    def look(self) -> None:
        """Looks for the brokers if they seem to be away or have not been heard from lately.

        The client does not always say when brokers are gone. They are asked as another client: who takes messages does
        not wait for what brokers that are away answer.
        """
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        if not self._away and time.monotonic() - max(self._heard, self._looked) <= _PROBES_EVERY_S:
            return
        if self._probe is None:
            settings: dict[str, Any] = {**self._cluster.settings(), "error_cb": self.hear}
            self._probe = AdminClient(settings)
        self._looked = time.monotonic()
        try:
            self._probe.list_topics(self._topics[0], timeout=_PROBE_S)
        except KafkaException as error:
            self._probe.poll(0)
            self.warn("no broker answers", error.args[0])
        else:
            self._away = False

    def warn(self, what: str, error: KafkaError) -> None:
        """Logs an error, unless the same was logged a moment ago or the consumer is closed."""
        if not self._is_closed and self._warnings[what].may_log():
            _LOG.warning("Kafka at %s: %s, trying again: %s", self._cluster.servers, what, error.str())

    def close(self) -> None:
        """Warns of nothing any more."""
        self._is_closed = True
