"""A test run that is stopped leaves no process behind: what it started ends with it, whatever ends it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support import processes
from tests.support.commands import ROOT
from tests.support.waiting import wait_until

_RUN = """\
import contextlib, sys, threading
from pathlib import Path
from tests.support import processes
from tests.support.ledger import MODEL
from tests.support.serving_process import serving

_STUBBORN = '''
import signal, sys, time
from pathlib import Path
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
Path(sys.argv[1]).touch()
while True:
    time.sleep(1)
'''

def test_that_does_not_end():
    folder = Path(__file__).parent
    with contextlib.ExitStack() as stack:
        started = [processes.start([sys.executable, "-c", _STUBBORN, str(folder / "ready")])]
        if (folder / "serve").exists():
            started.append(stack.enter_context(serving(MODEL)).process)
        (folder / "new").write_text(" ".join(str(process.pid) for process in started))
        (folder / "new").rename(folder / "pids")
        threading.Event().wait()
"""


def is_running(pid: int) -> bool:
    """Tells whether a process has not ended; one that nobody has waited for has."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def stop_pytest(process_id: int) -> None:
    """Does what a service manager does, and `kill`."""
    os.kill(process_id, signal.SIGTERM)


def interrupt_all(process_id: int) -> None:
    """Does what Ctrl-C does."""
    os.killpg(process_id, signal.SIGINT)


def kill_pytest(process_id: int) -> None:
    """Leaves it no time to end anything."""
    os.kill(process_id, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel ends what a killed process has started")
@pytest.mark.parametrize(
    ("end", "workers", "serves"),
    [
        (interrupt_all, 0, False),
        (interrupt_all, 1, True),
        (stop_pytest, 0, False),
        (stop_pytest, 1, False),
        (kill_pytest, 1, False),
    ],
)
def test_a_stopped_run_leaves_nothing_behind(
    tmp_path: Path, end: Callable[[int], None], workers: int, serves: bool
) -> None:
    if serves:
        (tmp_path / "serve").touch()
    (tmp_path / "test_run.py").write_text(_RUN)
    (tmp_path / "conftest.py").write_text("")
    arguments = ["-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}", "-n", str(workers)]
    run = processes.start(
        [sys.executable, *arguments, str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    names = [tmp_path / "pids", tmp_path / "ready"]
    wait_until(lambda: run.poll() is not None or all(name.exists() for name in names), "the run has started a server")
    assert run.poll() is None
    started = [int(pid) for pid in names[0].read_text().split()]
    assert len(started) == 1 + serves
    assert all(map(is_running, started))
    of_pytest = [child.pid for child in psutil.Process(run.pid).children(recursive=True)]
    assert set(started) <= set(of_pytest)
    try:
        end(run.pid)
        run.wait(timeout=120)
        wait_until(lambda: not any(map(is_running, of_pytest)), f"{of_pytest} have ended")
    finally:
        for pid in filter(is_running, of_pytest):
            os.kill(pid, signal.SIGKILL)
