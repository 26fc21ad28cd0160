"""Cloud Storage on loopback, with one bucket."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support import processes

Json = dict[str, Any]


class StorageEmulator:
    """Cloud Storage on loopback, with one bucket: `bucket`."""

    def __init__(self, url: str) -> None:
        self.url = url

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

    def has_model(self, uri: str) -> bool:
        return f"{uri.removeprefix('gs://bucket/')}/saved_model.pb" in self.items()


@contextmanager
def storage_emulator() -> Iterator[StorageEmulator]:
    """An emulator in a process of its own, which ends with the context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).parent / "gcp-storage-emulator")
    options = ["--host=127.0.0.1", f"--port={port}", "--in-memory", "--default-bucket=bucket", "--quiet"]
    process = processes.start([program, "start", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    emulator = StorageEmulator(f"http://127.0.0.1:{port}")
    try:
        for _ in range(300):
            try:
                emulator.items()
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.05)
        yield emulator
    finally:
        process.terminate()
        process.wait(timeout=20)
