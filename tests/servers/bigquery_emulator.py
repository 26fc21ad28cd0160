"""Runs bqemulator, BigQuery's REST and Storage APIs on DuckDB, in an environment of its own: `.venv-bigquery`.

The environment is made on first use from bigquery/requirements.txt. It listens on 127.0.0.1 only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.connectors.bigquery import tables as bigquery_tables
from tests.servers import tools
from tests.support import processes

_REQUIREMENTS = Path(__file__).resolve().parent / "bigquery" / "requirements.txt"
_READY_WITHIN_S = 60.0
# DuckDB would download its extensions. The home folder is where it looks for those it has.
_INSTALL = """
import duckdb, importlib.util, pathlib
for name in ("spatial", "avro"):
    [found] = importlib.util.find_spec(f"duckdb_extension_{name}").submodule_search_locations
    [file] = pathlib.Path(found).rglob("*.duckdb_extension")
    duckdb.execute(f"INSTALL '{file}'")
"""

PROJECT = "test-project"
DATASET = f"{PROJECT}.births"


class Emulator:
    """An emulator with a dataset, whose tables outlive its process.

    Attributes:
      rest: for BIGQUERY_EMULATOR_HOST.
      grpc: for BIGQUERY_STORAGE_EMULATOR_HOST.
      buckets: folder that stands for Cloud Storage: load jobs of gs://a/b read the file a/b in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.buckets = folder / "buckets"
        self.buckets.mkdir()
        ports = tools.free_ports(2)
        self._environment = tools.environment("bigquery", _REQUIREMENTS, "500 MB", _INSTALL)
        self.rest, self.grpc = (f"127.0.0.1:{port}" for port in ports)
        arguments = ["--rest-port", str(ports[0]), "--grpc-port", str(ports[1]), "--project", PROJECT]
        self._command = [str(self._environment / "bin" / "bqemulator"), "start", *arguments]
        self._command += ["--persistent", "--data-dir", str(folder / "data"), "--log-level", "warning"]
        self.start()
        with self.client() as client:
            client.create_dataset(DATASET)

    def client(self) -> Any:
        """A REST client."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BIGQUERY_EMULATOR_HOST", self.rest)
            return bigquery_tables.make_client(PROJECT)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Of a table of the dataset."""
        with self.client() as client:
            found = client.list_rows(client.get_table(f"{DATASET}.{table}"), page_size=10_000)
            return [dict(row.items()) for row in found]

    def create(self, table: str, columns: list[tuple[str, str, str]]) -> None:
        """Makes a table of the dataset: (name, type, mode) of its columns."""
        from google.cloud.bigquery import SchemaField, Table

        with self.client() as client:
            client.create_table(Table(f"{DATASET}.{table}", [SchemaField(*column) for column in columns]))

    def start(self) -> None:
        """Starts the process, with the tables that it had."""
        log = open(self._folder / "log", "w+b")  # noqa: SIM115 - the process has it
        self._process = processes.start(
            tools.guarded(self._command),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=self._folder,
            env={**os.environ, "HOME": str(self._environment), "BQEMU_GCS_LOCAL_ROOT": str(self.buckets)},
            start_new_session=True,
        )
        log.close()
        deadline = time.monotonic() + _READY_WITHIN_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                url = f"http://{self.rest}/bigquery/v2/projects/{PROJECT}/datasets"
                if httpx.get(url, timeout=5, trust_env=False).is_success:
                    return
            time.sleep(0.05)
        said = (self._folder / "log").read_text(errors="replace")[-3000:]
        self.stop()
        raise RuntimeError(f"the BigQuery emulator is not ready: {said}")

    def stop(self) -> None:
        """Kills the process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def pause(self) -> None:
        """The process answers nothing until `resume`."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Ends `pause`."""
        os.killpg(self._process.pid, signal.SIGCONT)


@contextlib.contextmanager
def bigquery_emulator() -> Iterator[Emulator]:
    """An emulator that ends with the block, or with this process."""
    if sys.version_info < (3, 11):
        pytest.skip("the BigQuery emulator needs Python 3.11")
    with tempfile.TemporaryDirectory() as folder:
        emulator = Emulator(Path(folder))
        try:
            yield emulator
        finally:
            emulator.stop()
