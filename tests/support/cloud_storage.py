"""Runs Cloud Storage on loopback: an emulator, and a server that gives tokens to a service account of nobody."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.servers.stand_in import stand_in
from tests.servers.tools import free_ports
from tests.support import processes
from tests.support.bucket import Bucket, wait_for

Json = dict[str, Any]
_TOKEN = b'{"access_token": "t", "expires_in": 3600, "token_type": "Bearer"}'


class StorageEmulator(Bucket):
    """Cloud Storage with one bucket."""

    root = "gs://bucket"

    def call(self, method: str, path: str, data: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return bytes(answer.read())

    def items(self, prefix: str = "") -> dict[str, Json]:
        """The objects by name."""
        answer = json.loads(self.call("GET", f"/storage/v1/b/bucket/o?prefix={quote(prefix, safe='')}"))
        return {item["name"]: item for item in answer.get("items", [])}

    def put(self, name: str, content: bytes) -> None:
        self.call("POST", f"/upload/storage/v1/b/bucket/o?uploadType=media&name={quote(name, safe='')}", content)

    def read(self, name: str) -> bytes:
        return self.call("GET", f"/storage/v1/b/bucket/o/{quote(name, safe='')}?alt=media")

    def delete(self, name: str) -> None:
        self.call("DELETE", f"/storage/v1/b/bucket/o/{quote(name, safe='')}")

    def names(self, prefix: str = "") -> list[str]:
        return sorted(self.items(prefix))

    def has_model(self, uri: str) -> bool:
        return f"{uri.removeprefix('gs://bucket/')}/saved_model.pb" in self.items()


@contextlib.contextmanager
def storage_emulator() -> Iterator[StorageEmulator]:
    """An emulator in a process of its own, which ends with the block; its environment has no credentials."""
    [port] = free_ports(1)
    program = str(Path(sys.executable).parent / "gcp-storage-emulator")
    options = ["--host=127.0.0.1", f"--port={port}", "--in-memory", "--default-bucket=bucket", "--quiet"]
    process = processes.start([program, "start", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    emulator = StorageEmulator(url, {**os.environ, "STORAGE_EMULATOR_HOST": url})
    try:
        wait_for(emulator.items, process)
        yield emulator
    finally:
        process.terminate()
        process.wait(timeout=20)


def write_account(path: Path, token_url: str) -> Path:
    """Writes a key file of a service account that gets its tokens from an address."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "test-project",
        "private_key_id": "none",
        "private_key": key.decode(),
        "client_email": "tests@test-project.iam.gserviceaccount.com",
        "token_uri": token_url,
    }
    path.write_text(json.dumps(account))
    return path


@contextlib.contextmanager
def cloud_storage(folder: Path) -> Iterator[StorageEmulator]:
    """An emulator, and in its environment credentials, which are in a folder, while the block runs."""
    with stand_in(lambda seen: (200, _TOKEN)) as tokens, storage_emulator() as emulator:
        emulator.env |= {
            "GOOGLE_APPLICATION_CREDENTIALS": str(write_account(folder / "account.json", f"{tokens.url}/token")),
            "GOOGLE_CLOUD_PROJECT": "test-project",
            "NO_GCE_CHECK": "true",
        }
        yield emulator
