"""Processes of a comparison, and Prism: they end with the one that started them, and are measured as themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipelines.engine import processes
from tests.support.processes import start
from tests.support.waiting import wait_until

# Starts a program that ignores what asks it to end, and that has started another one.
STARTS = """\
import subprocess, sys, time
from pipelines.engine import processes
child = "import os, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); " \\
    "own = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); " \\
    "print(os.getpid(), own.pid, flush=True); time.sleep(600)"
process = processes.start([sys.executable, "-c", child], subprocess.PIPE, sys.stderr.buffer)
print(process.pid, process.stdout.readline().decode(), flush=True)
time.sleep(600)
"""


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_they_end_with_the_process_that_started_them(number: signal.Signals) -> None:
    starter = start([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid, told, own = map(int, starter.stdout.readline().split())
    assert pid == told
    group = [each.pid for each in psutil.process_iter() if os.getpgid(each.pid) == pid]
    assert {pid, own} < set(group)
    starter.send_signal(number)
    starter.wait(60)
    starter.stdout.close()
    wait_until(lambda: all(map(is_gone, group)), "they have ended")


def test_what_is_left_of_a_process_that_has_ended_goes(tmp_path: Path) -> None:
    leaves = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], "
    leaves += "stdout=subprocess.DEVNULL).pid)"
    with (tmp_path / "log").open("wb") as log:
        process = processes.start([sys.executable, "-c", leaves], subprocess.PIPE, log)
    assert process.stdout is not None
    with process.stdout:
        left = int(process.stdout.read())
    assert process.wait(60) == 0
    assert not is_gone(left)
    processes.let_go(process)
    wait_until(lambda: is_gone(left), "it has ended")


def test_one_that_is_let_go_ends() -> None:
    words = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\n"
    process = processes.start([sys.executable, "-c", words + "time.sleep(600)"], subprocess.PIPE, subprocess.DEVNULL)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        processes.let_go(process)
    assert process.wait(60) == -signal.SIGKILL


def test_exit_codes_output_and_processors_are_those_of_the_program(tmp_path: Path) -> None:
    words = "import sys, time; begun = time.process_time()\nwhile time.process_time() < begun + 0.3: pass\n"
    words += "print(sys.argv[1:], sys.stdin.read()); sys.exit(7)"
    with (tmp_path / "log").open("wb") as log:
        process = processes.start([sys.executable, "-c", words, "a b", '"$c"'], subprocess.PIPE, log)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.read().decode().strip() == "['a b', '\"$c\"']"
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    processes.let_go(process)
    assert process.returncode == 7
    assert used.ru_utime + used.ru_stime >= 0.3
