"""Runs a function or a module in a process of its own and measures the memory that it takes.

`python -m tests.support.memory REPORT LIMIT TARGET [ARGUMENT ...]`: TARGET is `package.module:function`, which is
called with the arguments, or a module that is run as a script.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import runpy
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import processes

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Measured:
    """What a process left.

    Attributes:
      code: exit code.
      out: standard output.
      err: standard error.
      before: peak bytes of memory when everything was imported.
      peak: peak bytes of memory at the end, with those of the processes that it has started and that go on.
      result: what the function returned; None of a module.
    """

    code: int
    out: str
    err: str
    before: int
    peak: int
    result: Any


def measure(target: str, *arguments: str, limit_bytes: int = 0, timeout_s: float = 300) -> Measured:
    """Runs a target.

    Args:
      target: `package.module:function`, or a module.
      arguments: its arguments.
      limit_bytes: address space that it may take, so that a mistake does not take the machine; 0 for any.
      timeout_s: against hanging.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        command = [sys.executable, "-m", "tests.support.memory", report, str(limit_bytes), target, *arguments]
        done = processes.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT, check=False)
        found = json.loads(Path(report).read_text()) if os.path.exists(report) else {}
    before, peak, result = found.get("before", 0), found.get("peak", 0), found.get("result")
    return Measured(done.returncode, done.stdout, done.stderr, before, peak, result)


def _peak() -> int:
    """Peak bytes of this process and of its children."""
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    own = _peak_of("self")
    if not own:
        raise OSError("/proc/self/status has no VmHWM")
    return own + sum(map(_peak_of, children))


def _peak_of(process: str) -> int:
    """Peak bytes of a process, 0 of one that has ended. `ru_maxrss` would count what its parent had before it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


@contextlib.contextmanager
def _reported(path: str, found: dict[str, Any]) -> Iterator[None]:
    found["before"] = _peak()
    try:
        yield
    finally:
        found["peak"] = _peak()
        Path(path).write_text(json.dumps(found))


def main(report: str, limit: str, target: str, *arguments: str) -> None:
    """Runs a target in this process and writes the report."""
    if int(limit):
        resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
    found: dict[str, Any] = {}
    module, _, function = target.partition(":")
    if function:
        call = getattr(importlib.import_module(module), function)
        with _reported(report, found):
            found["result"] = call(*arguments)
    else:
        sys.argv = [module, *arguments]
        with _reported(report, found):
            runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
