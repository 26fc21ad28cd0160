"""Starts the stand-ins of the services once for each module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.deploy.cloud import Cloud, copy_model, no_credentials
from tests.model.deploy.cloud_stand_in import CloudStandIn
from tests.support.cloud_storage import StorageEmulator, storage_emulator


@pytest.fixture(scope="module")
def storage() -> Iterator[StorageEmulator]:
    with storage_emulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def served(storage: StorageEmulator) -> Iterator[tuple[CloudStandIn, str]]:
    cloud = CloudStandIn(storage.has_model)
    with cloud.serve() as url:
        yield cloud, url


@pytest.fixture
def cloud(
    served: tuple[CloudStandIn, str],
    storage: StorageEmulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Cloud:
    stand_in, url = served
    stand_in.__init__(storage.has_model)  # type: ignore[misc]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
    no_credentials(monkeypatch, tmp_path)
    made = Cloud(stand_in, url, storage, tmp_path.name, copy_model(tmp_path / "models" / "v1"))
    copy_model(tmp_path / "models" / "v2", b"other content")
    copy_model(tmp_path / "models" / "v3", b"third content")
    made._capture = capsys
    return made
