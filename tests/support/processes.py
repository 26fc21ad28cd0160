"""Starts processes that end when this process ends, however it ends: nothing that a test has started is left behind.

On Linux the kernel kills them with this process, also when it is killed itself. Elsewhere they are killed when Python
ends.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# Runs in the new process before the program, in place of preexec_fn, which runs in a fork of this process: gRPC's
# threads do not bear that. A process whose starter has ended before the kernel was asked does not begin.
_BIND = """\
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
# Python ignores the first two, and a program would inherit that; Popen restores them before it starts one. The others
# are ignored where the tests run in the background of a shell's script, or under nohup.
for name in ("SIGPIPE", "SIGXFSZ", "SIGHUP", "SIGINT"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error}")
"""

_own = os.getpid()
_lasting_thread = ThreadPoolExecutor(1, "starts processes")
_started: weakref.WeakSet[subprocess.Popen[Any]] = weakref.WeakSet()


def bound(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Returns a command that runs another one, in the same process, which ends with the thread that starts it."""
    return [sys.executable, "-I", "-S", "-c", _BIND, str(os.getpid()), *map(os.fspath, command)]


def start(command: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[Any]:
    """Starts a process that ends with this one.

    Args:
      command: the program and its arguments.
      options: of subprocess.Popen.
    """

    def start_it() -> subprocess.Popen[Any]:
        return subprocess.Popen(bound(command), **options)

    # The kernel takes the end of the thread that starts a process for the end of this process.
    is_main = threading.current_thread() is threading.main_thread()
    process = start_it() if is_main else _lasting_thread.submit(start_it).result()
    _started.add(process)
    return process


def run(command: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Runs a program to its end, as subprocess.run does with the same options; it ends with this process."""
    return subprocess.run(bound(command), **options)


@atexit.register
def end_all() -> None:
    """Kills every process that was started and still runs."""
    # A fork of this process has not started them.
    for process in list(_started) if os.getpid() == _own else ():
        if process.poll() is None:
            process.kill()
            process.wait()
