"""Google's own in-memory Bigtable, as a process: built with Go on first use, into .tools."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
from google.cloud.bigtable_admin_v2 import BigtableTableAdminClient
from google.cloud.bigtable_admin_v2.services.bigtable_table_admin.transports import BigtableTableAdminGrpcTransport
from google.cloud.bigtable_admin_v2.types import ColumnFamily, GcRule, Table
from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport
from google.cloud.bigtable_v2.types import ReadRowsRequest

from tests.servers import tools
from tests.support import processes

_SOURCE = Path(__file__).resolve().parent / "bigtable"

PROJECT = "test-project"
INSTANCE = f"projects/{PROJECT}/instances/births"


class Cell(NamedTuple):
    """The newest version of a cell, and how many there are."""

    value: bytes
    time_ms: int
    versions: int


class Emulator:
    """An emulator.

    Attributes:
      host: for BIGTABLE_EMULATOR_HOST.
    """

    def __init__(self, host: str, process: subprocess.Popen[str]) -> None:
        self.host = host
        self._process = process
        # Not google.cloud.bigtable.Client, which reports to Cloud Monitoring whatever it talks to.
        self._channel = grpc.insecure_channel(host)
        self._data = BigtableGrpcTransport(channel=self._channel)
        self._admin = BigtableTableAdminClient(transport=BigtableTableAdminGrpcTransport(channel=self._channel))

    def create(self, table: str, family: str, versions: int | None = None) -> None:
        """Makes a table with a family that keeps so many versions of a cell, or all."""
        made = ColumnFamily(gc_rule=None if versions is None else GcRule(max_num_versions=versions))
        self._admin.create_table(parent=INSTANCE, table_id=table, table=Table(column_families={family: made}))

    def drop(self, table: str) -> None:
        """Deletes a table."""
        self._admin.delete_table(name=f"{INSTANCE}/tables/{table}")

    def rows(self, table: str) -> dict[str, dict[str, Cell]]:
        """The cells of all rows, by row key and then "family:column"."""
        found: dict[str, dict[str, Cell]] = {}
        key = family = column = ""
        for answer in self._data.read_rows(ReadRowsRequest(table_name=f"{INSTANCE}/tables/{table}")):
            for chunk in answer.chunks:
                # What is the same as in the chunk before is left out; the newest version comes first.
                key = chunk.row_key.decode() or key
                family = chunk.family_name if "family_name" in chunk else family
                column = chunk.qualifier.decode() if "qualifier" in chunk else column
                assert not chunk.value_size, "no test has cells that large"
                cells = found.setdefault(key, {})
                newest = cells.get(f"{family}:{column}", Cell(chunk.value, chunk.timestamp_micros // 1000, 0))
                cells[f"{family}:{column}"] = newest._replace(versions=newest.versions + 1)
        return found

    def families(self, table: str) -> list[str]:
        """Of a table."""
        return list(self._admin.get_table(name=f"{INSTANCE}/tables/{table}").column_families)

    def close(self) -> None:
        """Disconnects."""
        self._channel.close()

    def pause(self) -> None:
        """The process answers nothing until `resume`."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Ends `pause`."""
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def bigtable_emulator() -> Iterator[Emulator]:
    """An emulator that ends with the block, or with this process: its standard input does then."""
    process = processes.start(
        [tools.built("bigtable-emulator", _SOURCE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        emulator = Emulator(process.stdout.readline().strip(), process)
        try:
            yield emulator
        finally:
            emulator.close()
    finally:
        process.kill()
        process.communicate()
