"""Starts `python -m model.serve` for tests and benchmarks, and ends it with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.support import processes

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 90


@dataclass(frozen=True)
class Serving:
    """A running server.

    Attributes:
      rest: its address, http://host:port.
      grpc: host:port.
      process: the server's process.
      log: the file with what it said on standard error.
    """

    rest: str
    grpc: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def stderr(self) -> str:
        """What it said on standard error so far."""
        return self.log.read_text("utf-8", "replace")


@contextmanager
def serving(model: str | Path, *arguments: str, port: int = 0) -> Iterator[Serving]:
    """Serves a model while the block runs.

    Args:
      model: a SavedModel, or a folder of versions.
      arguments: further ones for the command line.
      port: of REST; 0 for any free one.
    """
    command = [sys.executable, "-m", "model.serve", "--json", "--model", str(model), "--port", str(port), *arguments]
    environment = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    with tempfile.NamedTemporaryFile(prefix="serve-", suffix=".log") as log:
        process = processes.start(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log)
        try:
            ready = json.loads(_first_line(process) or b"{}")
            if not ready.get("ready"):
                said = Path(log.name).read_text("utf-8", "replace")
                raise AssertionError(f"{' '.join(command)} did not start (exit code {process.poll()}):\n{said[-4000:]}")
            yield Serving(ready["rest"], ready["grpc"], process, Path(log.name))
        finally:
            process.kill()
            process.wait()
            _stdout(process).close()


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """The line that says that the server is ready; b"" if it ends before, or takes too long."""
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        return _stdout(process).readline()
    finally:
        timer.cancel()


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout
