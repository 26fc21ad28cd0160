"""Cloud Storage on loopback: an emulator, and a server that gives tokens to a service account of nobody."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import quote

from tests.support import processes


class _Tokens(BaseHTTPRequestHandler):
    """Gives everybody an access token."""

    def do_POST(self) -> None:
        body = b'{"access_token": "t", "expires_in": 3600, "token_type": "Bearer"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Storage:
    """An emulator of Cloud Storage, and the environment in which Beam uses it."""

    def __init__(self, url: str, env: dict[str, str]) -> None:
        self.url, self.env = url, env

    def call(self, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, data)
        if data is not None:
            request.add_header("Content-Type", "application/octet-stream")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return bytes(answer.read())

    def put(self, name: str, content: bytes) -> None:
        self.call(f"/upload/storage/v1/b/bucket/o?uploadType=media&name={quote(name, safe='')}", content)

    def names(self) -> list[str]:
        answer = json.loads(self.call("/storage/v1/b/bucket/o"))
        return sorted(item["name"] for item in answer.get("items", []))

    def download(self, prefix: str, folder: Path) -> None:
        for name in self.names():
            if name.startswith(prefix):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.call(f"/storage/v1/b/bucket/o/{quote(name, safe='')}?alt=media"))


@contextlib.contextmanager
def cloud_storage(folder: Path) -> Iterator[Storage]:
    """An emulator with one bucket, `bucket`, and credentials in a folder, while the block runs."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tokens = HTTPServer(("127.0.0.1", 0), _Tokens)
    threading.Thread(target=tokens.serve_forever, daemon=True).start()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "test-project",
        "private_key_id": "none",
        "private_key": key.decode(),
        "client_email": "tests@test-project.iam.gserviceaccount.com",
        "token_uri": f"http://127.0.0.1:{tokens.server_port}/token",
    }
    (folder / "account.json").write_text(json.dumps(account))
    url = f"http://127.0.0.1:{port}"
    env = {
        **os.environ,
        "STORAGE_EMULATOR_HOST": url,
        "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "account.json"),
        "GOOGLE_CLOUD_PROJECT": "test-project",
        "NO_GCE_CHECK": "true",
    }
    emulator = processes.start(
        [
            str(Path(sys.executable).parent / "gcp-storage-emulator"),
            *("start", "--host=127.0.0.1", f"--port={port}", "--in-memory", "--default-bucket=bucket", "--quiet"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    made = Storage(url, env)
    try:
        for _ in range(200):
            try:
                made.names()
                break
            except OSError:
                assert emulator.poll() is None
                time.sleep(0.1)
        yield made
    finally:
        emulator.terminate()
        emulator.wait(timeout=20)
        tokens.shutdown()
        tokens.server_close()
