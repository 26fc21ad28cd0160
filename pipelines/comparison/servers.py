"""Starts the local servers that ways call, and says what they have used."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from pipelines.comparison.ways import ServerAddress
from pipelines.config.comparison import LocalServer
from pipelines.config.errors import ConfigError
from pipelines.engine import processes

_START_S = 180
_END_S = 15
_SAID = 2_000


def peak_mb_of(pid: int) -> float | None:
    """Returns the most resident memory of a process so far; None if it has ended, or the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


class RunningServer:
    """Runs `python -m model.serve` until it is closed.

    Args:
      server: how to start it.
      model: the SavedModel to serve, a local folder.
      settings: of the run's model that the server has to know: signature, runtime, op_libraries.
      folder: where batch prediction jobs may read and write.
      log: file for what it says.

    Raises:
      ConfigError: it does not start.
    """

    def __init__(self, server: LocalServer, model: str, settings: dict[str, Any], folder: str, log: Path) -> None:
        self._log = log
        command = [sys.executable, "-m", "model.serve", "--json", "--model", model, "--port", "0"]
        command += ["--job-folder", folder, "--latency-ms", f"{server.latency_ms:g}"]
        command += ["--quota-qps", f"{server.quota_qps:g}"] if server.quota_qps is not None else []
        command += ["--threads", str(server.threads)] if server.threads is not None else []
        command += ["--signature", settings["signature"]] if settings.get("signature") else []
        command += ["--runtime", settings["runtime"]] if settings.get("runtime") else []
        for library in settings.get("op_libraries") or ():
            command += ["--op-library", library]
        with self._log.open("wb") as said:
            self._process = processes.start(command, subprocess.PIPE, said)
        try:
            ready = self._ready()
        except BaseException:
            # Ctrl-C does not reach it, and nobody else knows of it yet.
            self.close()
            raise
        if not ready:
            self.close()
            raise ConfigError([f"the local server of {model} did not start: {self._last_words()}"])
        self.address = ServerAddress(ready["rest"], ready["grpc"])
        self._seen = psutil.Process(self._process.pid)

    def _ready(self) -> dict[str, Any]:
        """The line that says that it is ready; empty if it ends before, or takes too long."""
        assert self._process.stdout is not None
        # No thread waits here: one that is being started as Ctrl-C comes would be waited for at the end of Python.
        if not select.select([self._process.stdout], [], [], _START_S)[0]:
            return {}
        try:
            found = json.loads(self._process.stdout.readline() or b"{}")
        except ValueError:
            found = {}
        return found if isinstance(found, dict) and found.get("ready") else {}

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace")[-_SAID:].strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.poll()}"

    @property
    def cpu_s(self) -> float:
        """Returns the seconds of processors that it has used so far; 0 if it has ended."""
        try:
            used = self._seen.cpu_times()
        except psutil.Error:
            return 0.0
        return float(used.user + used.system)

    @property
    def peak_mb(self) -> float:
        """Returns its most resident memory; what it has now, where the system does not tell."""
        if (peak := peak_mb_of(self._process.pid)) is not None:
            return peak
        try:
            return float(self._seen.memory_info().rss) / (1 << 20)
        except psutil.Error:
            return 0.0

    def close(self) -> None:
        """Ends it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        processes.let_go(self._process)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Servers:
    """Keeps one running server for each way of starting one.

    Args:
      settings: of the run's model that servers have to know.
      folder: where batch prediction jobs may read and write.
      logs: folder for what servers say.
    """

    def __init__(self, settings: dict[str, Any], folder: str, logs: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._logs = logs
        self._running: dict[str, RunningServer] = {}

    def of(self, server: LocalServer, model: str) -> RunningServer:
        """Returns the server, started if it does not run yet. Raises ConfigError: it does not start."""
        key = f"{server.model_dump_json()} {os.path.realpath(model)}"
        if key not in self._running:
            log = self._logs / f"server-{len(self._running) + 1}.log"
            self._running[key] = RunningServer(server, model, self._settings, self._folder, log)
        return self._running[key]

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *error: object) -> None:
        for each in self._running.values():
            each.close()
