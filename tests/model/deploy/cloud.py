"""Runs the command that puts a model online, against the stand-ins of the services."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from model import deploy
from tests.model.deploy.cloud_stand_in import CloudStandIn
from tests.support.cloud_storage import StorageEmulator
from tests.support.commands import ROOT, Result

PACKAGED = ROOT / "model" / "trained" / "v1"
SERVICES = ("ai_platform", "vertex")


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


class Cloud:
    """The stand-ins, and the command against them."""

    def __init__(self, stand_in: CloudStandIn, url: str, storage: StorageEmulator, prefix: str, model: Path) -> None:
        self.stand_in, self.url, self.storage, self.prefix = stand_in, url, storage, prefix
        self.models = model.parent
        self.clock = Clock()
        self._capture: Any = None

    @property
    def bucket(self) -> str:
        return f"gs://bucket/{self.prefix}"

    def objects(self) -> set[str]:
        return {name.removeprefix(f"{self.prefix}/") for name in self.storage.items(f"{self.prefix}/")}

    def arguments(self, service: str, version: str = "v1") -> list[str]:
        return [
            *(service, "--model", str(self.models / version), "--bucket", self.bucket, "--project", "test-project"),
            *(["--location", "us-central1"] if service == "vertex" else []),
            *("--name", "births", "--url", self.url),
        ]

    def run(self, service: str, *arguments: str, version: str = "v1") -> Result:
        """Runs the command; the log of the stand-in then holds its requests."""
        self.stand_in.log.clear()
        return self.main([*self.arguments(service, version), *arguments])

    def main(self, arguments: list[str]) -> Result:
        self._capture.readouterr()
        try:
            code = deploy.main(arguments, sleep=self.clock.sleep, clock=self.clock)
        except SystemExit as exit:
            code = int(exit.code or 0)
        out, err = self._capture.readouterr()
        return Result(code, out, err)

    def done(self, service: str, *arguments: str, version: str = "v1") -> dict[str, Any]:
        """Runs the command, which succeeds; what --json prints, its steps as a dictionary."""
        result = self.run(service, *arguments, "--json", version=version)
        assert result.code == 0, result
        steps = {step["what"].replace(self.bucket, "files"): step["done"] for step in result.summary["steps"]}
        return {**result.summary, "steps": steps}


def copy_model(folder: Path, extra: bytes = b"") -> Path:
    shutil.copytree(PACKAGED, folder)
    (folder / "assets").mkdir(exist_ok=True)
    if extra:
        (folder / "assets" / "words.txt").write_bytes(extra)
    return folder


def no_credentials(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(empty))
