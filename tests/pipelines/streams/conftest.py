"""Starts the servers that the tests of streams share, once in each test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.kafka import Broker, kafka_broker
from tests.support.pythons import HAS_STREAMS

collect_ignore_glob = [] if HAS_STREAMS else ["test_*.py"]


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A broker; tests have topics and groups of their own."""
    with kafka_broker() as made:
        yield made
