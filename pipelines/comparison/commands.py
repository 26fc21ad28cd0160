"""Runs one command and measures it: time, processors, memory, and what its closing summary says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from model.secrets import masked
from pipelines.comparison.results import Run
from pipelines.comparison.servers import RunningServer, peak_mb_of
from pipelines.engine import processes

_SAID = 4_000
_LOOK_S = 0.05
_READY = b"running on "
"""In what a stream says when it begins to read."""
_KILOBYTES = 1024 if sys.platform != "darwin" else 1024 * 1024
"""In a megabyte of the kernel's most resident memory."""


@dataclass(frozen=True)
class MeasuredCommand:
    """Describes a command to run.

    Attributes:
      module: `batch` or `stream`.
      config: path of the run's config.
      changes: what changes in it.
      arguments: further ones.
      way: name of the way.
      load: rows of a batch run, messages a second of a stream.
      server: the local server that it calls, if there is one.
    """

    module: str
    config: str
    changes: Mapping[str, Any]
    arguments: tuple[str, ...]
    way: str
    load: float
    server: RunningServer | None = None

    def words(self) -> list[str]:
        """Returns the command line."""
        changes = ["--set", json.dumps(self.changes)]
        return [*calling(self.module), "--config", self.config, *changes, "--json", *self.arguments]


def calling(module: str) -> list[str]:
    """Returns the beginning of the command line of `python -m pipelines.<module>`."""
    return [sys.executable, "-m", f"pipelines.{module}"]


@dataclass(frozen=True)
class Ended:
    """Says how a process ended.

    Attributes:
      out: its standard output.
      code: exit code; negative for a signal.
      seconds: from its start to its end.
      told_s: from its start to its last line.
      cpu_s: seconds of processors, of those that it has started too.
      peak_mb: most resident memory.
      in_time: False if it took too long, and was killed.
    """

    out: str
    code: int
    seconds: float
    told_s: float
    cpu_s: float
    peak_mb: float
    in_time: bool = True


def run(command: MeasuredCommand, round: int, log: Path, limit_s: float, publish: Sequence[str] = ()) -> Run:
    """Runs a command to its end, and returns what was measured.

    Args:
      command: what to run.
      round: number of the round.
      log: file for its standard error.
      limit_s: after which it is killed.
      publish: a command that sends the messages of a stream, once that is ready; empty if there is none.
    """
    begun = datetime.now(timezone.utc).isoformat(timespec="seconds")
    server = command.server
    server_before = server.cpu_s if server is not None else 0.0
    with _Publisher(publish, log):
        ended = _execute(command.words(), log, limit_s)
    measured: dict[str, Any] = {
        "way": command.way,
        "load": command.load,
        "round": round,
        "begun": begun,
        "elapsed_s": ended.seconds,
        "pipeline_cpu_s": ended.cpu_s,
        "pipeline_peak_mb": ended.peak_mb,
        "exit_code": ended.code,
    }
    if server is not None:
        measured |= {"server_cpu_s": max(0.0, server.cpu_s - server_before), "server_peak_mb": server.peak_mb}
    summary = _summary(ended.out)
    if summary is not None:
        measured |= _from_summary(summary, ended)
    error = _error(ended, summary, log, limit_s)
    return Run(**measured, error=error)


def _execute(words: Sequence[str], log: Path, limit_s: float) -> Ended:
    begun = time.monotonic()
    with log.open("wb") as err:
        process = processes.start(words, subprocess.PIPE, err)
    assert process.stdout is not None
    reaped = False
    in_time = True
    try:
        with _KilledAfter(process, limit_s) as late, _Watched(process.pid) as watched, process.stdout:
            out = process.stdout.read()
            told = time.monotonic() - begun
            _, status, used = os.wait4(process.pid, 0)
            reaped = True
            in_time = not late.is_set()
    finally:
        if not reaped:
            _kill(process)
            process.wait()
        processes.let_go(process)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(
        out.decode("utf-8", "replace"),
        process.returncode,
        time.monotonic() - begun,
        told,
        used.ru_utime + used.ru_stime,
        watched.peak_mb or used.ru_maxrss / _KILOBYTES,
        in_time,
    )


class _Publisher:
    """Sends messages to a stream once it says that it runs, until the block ends.

    Args:
      words: the command that sends them; nothing is done if it is empty.
      log: of the stream.
    """

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self._words = list(words)
        self._log = log
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="publisher", daemon=True)

    def __enter__(self) -> None:
        self._log.unlink(missing_ok=True)
        if self._words:
            self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._words:
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_S):
            if self._log.exists() and _READY in self._log.read_bytes():
                break
        else:
            return
        with self._log.with_suffix(".publish").open("wb") as said:
            process = processes.start(self._words, said, said)
        while process.poll() is None and not self._over.wait(_LOOK_S):
            pass
        if process.poll() is None:
            process.terminate()
        process.wait()
        processes.let_go(process)


class _Watched:
    """Looks at the memory of a process until the block ends.

    What the kernel tells at its end has the memory of the process that started it, if that is larger.

    Attributes:
      peak_mb: the most that was seen; 0 where the system does not tell.
    """

    def __init__(self, pid: int) -> None:
        self.peak_mb = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.peak_mb = max(self.peak_mb, peak_mb_of(self._pid) or 0.0)

    def __enter__(self) -> _Watched:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


class _KilledAfter:
    """Kills a process and what it has started once its time is over."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._late = threading.Event()
        self._process = process
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def _end(self) -> None:
        self._late.set()
        _kill(self._process)

    def __enter__(self) -> Any:
        self._timer.start()
        return self._late

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def _summary(out: str) -> dict[str, Any] | None:
    """The closing summary; None if there is none."""
    lines = out.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and "rows_read" in found and "seconds" in found else None


def _from_summary(summary: dict[str, Any], ended: Ended) -> dict[str, Any]:
    work = float(summary["seconds"])
    latencies = {
        stage: {name: float(value) for name, value in found.items()}
        for stage, found in (summary.get("stage_latency_ms") or {}).items()
    }
    return {
        "start_s": max(0.0, ended.told_s - work),
        "work_s": work,
        "end_s": max(0.0, ended.seconds - max(ended.told_s, work)),
        "steps_s": (summary.get("batch_job") or {}).get("steps_s") or {},
        "rows_read": summary["rows_read"],
        "rows_written": summary["rows_written"],
        "rows_dead_lettered": summary["rows_dead_lettered"],
        "requests": summary.get("requests"),
        "requests_repeated": summary.get("requests_repeated"),
        "bytes_sent": summary.get("bytes_sent"),
        "latency_ms": latencies,
    }


def _error(ended: Ended, summary: dict[str, Any] | None, log: Path, limit_s: float) -> str:
    """Why the run failed, on one line; empty if it did not."""
    if not ended.in_time:
        return f"not finished after {limit_s:,.0f} s"
    if ended.code == 0 and summary is not None:
        return ""
    said = log.read_text("utf-8", "replace")[-_SAID:].splitlines()
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    why = errors[0] if errors else (said[-1] if said else "it said nothing")
    return masked(f"exit code {ended.code}: {why}")[:500]
