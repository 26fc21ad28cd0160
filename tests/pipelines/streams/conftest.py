"""Starts the servers that the tests of streams share, once in each test process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.servers.kafka import Broker, kafka_broker

# Their modules import what Beam has since 2.77, which needs Python 3.11 (pipelines.stream says so).
collect_ignore_glob = ["test_*.py"] if sys.version_info < (3, 11) else []


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A broker; tests have topics and groups of their own."""
    with kafka_broker() as made:
        yield made
