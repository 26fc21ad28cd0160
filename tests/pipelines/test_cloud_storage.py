"""A run whose source, model, output and dead letters are on Cloud Storage: an emulator on loopback."""

from __future__ import annotations

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

import pytest

from tests import ledger
from tests.conftest import ROOT
from tests.ledger import KEY, assert_balanced, births, write_config, write_rows


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


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
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
    (tmp_path / "account.json").write_text(json.dumps(account))
    url = f"http://127.0.0.1:{port}"
    env = {
        **os.environ,
        "STORAGE_EMULATOR_HOST": url,
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "account.json"),
        "GOOGLE_CLOUD_PROJECT": "test-project",
        "NO_GCE_CHECK": "true",
    }
    emulator = subprocess.Popen(
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


_COMMANDS = """
import sys
from pipelines import batch, replay
for module, arguments in ((batch, []), (batch, []), (replay, [sys.argv[2]])):
    code = module.main(["--config", sys.argv[1], "--json", *arguments])
    if code:
        sys.exit(code)
"""


def test_a_run_on_cloud_storage(storage: Storage, tmp_path: Path) -> None:
    """Twice, the second replacing the first's shards, then a replay of the dead letters."""
    rows = births(400, 1)
    bad = [{**row, "is_male": None} for row in rows[:3]]
    good = rows[3:]
    for number, part in enumerate((bad + good[:200], good[200:])):
        storage.put(f"in/births-{number}.csv", write_rows(tmp_path / "in.csv", "csv", part).read_bytes())
    for path in Path(ledger.MODEL).rglob("*"):
        if path.is_file():
            storage.put(f"model/v1/{path.relative_to(ledger.MODEL)}", path.read_bytes())
    storage.put("out/p-00001-of-00002.csv", b"stale")
    storage.put("out/p-notes.txt", b"mine")
    config = write_config(
        tmp_path,
        "csv",
        "gs://bucket/in/births-*.csv",
        model={"path": "gs://bucket/model", "version": "latest"},
        output={"path": "gs://bucket/out/p"},
        dead_letters={"path": "gs://bucket/out/dead"},
    )
    fixed = json.dumps({**ledger.DEFAULTS, "is_male": "True"})
    done = subprocess.run(
        [sys.executable, "-c", _COMMANDS, config, f"--set=source.defaults={fixed}"],
        cwd=ROOT,
        env=storage.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summaries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(s["rows_read"], s["rows_written"], s["rows_dead_lettered"]) for s in summaries] == [
        (400, 397, 3),
        (400, 397, 3),
        (3, 3, 0),
    ]
    names = storage.names()
    assert not [name for name in names if ".tmp" in name]
    assert "out/p-notes.txt" in names
    assert not [name for name in names if name.startswith("out/dead")]
    storage.download("out/p-", tmp_path / "got")
    (tmp_path / "got" / "out" / "p-notes.txt").unlink()
    books = ledger.read_books(tmp_path / "got" / "out" / "p", tmp_path / "got" / "out" / "dead")
    assert_balanced(books, good + [{**row, "is_male": "True"} for row in bad], {})
    assert len({row[KEY] for row in books.output}) == 400
