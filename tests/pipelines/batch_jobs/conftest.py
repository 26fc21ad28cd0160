"""Holds what the tests of batch prediction jobs share: a server of both services, and the config of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.job_server import JobServer, job_server
from tests.support.keyed_model import save_keyed


@pytest.fixture(scope="session")
def keyed_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The packaged model with a key that goes through it."""
    return save_keyed(tmp_path_factory.mktemp("keyed"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[JobServer]:
    """A server of jobs that all end well."""
    with job_server(tmp_path) as server:
        yield server
