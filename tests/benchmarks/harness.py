"""Runs a command to its end: wall time, what it said, and the peak memory of all its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_SECONDS = 0.2

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONWARNINGS": "ignore",
}
"""The same for every contestant."""


@dataclass(frozen=True)
class Finished:
    """A command that ended.

    Attributes:
      code: its exit code.
      out: its standard output.
      err: its standard error.
      seconds: its wall time.
      peak_rss_mb: the most resident memory that it and its children had, in 10^6 bytes.
    """

    code: int
    out: str
    err: str
    seconds: float
    peak_rss_mb: float


def run(command: Sequence[str], timeout: float, env: Mapping[str, str] = QUIET) -> Finished:
    """Runs a command in a process group of its own; what is left of the group afterwards is ended."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **env}, start_new_session=True)
        timer = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        memory = _Memory(process.pid)
        try:
            _, status = os.waitpid(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            sampled = memory.stop()
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        out.seek(0)
        err.seek(0)
        return Finished(process.returncode, out.read(), err.read(), seconds, sampled / 1e6)


def _command_line(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


class _Memory:
    """Samples the resident memory of a process and its descendants; shared pages count once.

    The kernel's own peak (ru_maxrss) will not do: it begins with the memory of this process, from before the exec.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Ends the sampling; the peak in bytes."""
        self._stop.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, self._resident())

    def _resident(self) -> int:
        private, shared = 0, 0
        self._peak = max(self._peak, self._high_water())
        for pid in self._descendants():
            try:
                with open(f"/proc/{pid}/statm") as file:
                    _, resident, common, *_ = map(int, file.read().split())
            except (OSError, ValueError):
                continue
            private += resident - common
            shared = max(shared, common)
        return (private + shared) * _PAGE

    def _high_water(self) -> int:
        """The most that the first process alone has had since it was executed, bytes."""
        try:
            with open(f"/proc/{self._root}/status") as file:
                lines = [line.split() for line in file if line.startswith("VmHWM:")]
        except OSError:
            return 0
        return int(lines[0][1]) * 1024 if lines and self._executed() else 0

    def _executed(self) -> bool:
        """Whether the process is no longer a copy of this one."""
        try:
            return _command_line(self._root) != _command_line(os.getpid())
        except OSError:
            return False

    def _descendants(self) -> set[int]:
        parents = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat") as file:
                        parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
                except (OSError, ValueError, IndexError):
                    continue
        found, new = set(), {self._root}
        while new:
            found |= new
            new = {pid for pid, parent in parents.items() if parent in new} - found
        return found
