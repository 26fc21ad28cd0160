"""Starts processes that end when this process ends, however it ends: also when it is killed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import IO, Any

_GUARD = 'exec 3<&0 </dev/null; { read -r end <&3; kill -9 -$$; } >/dev/null 2>&1 & exec 3<&-; exec "$@"'
"""Makes a shell become the program, so that what is measured of its process is the program's. Beside it, one process
waits for the end of standard input, which comes with the end of this process, and then kills the whole group.
"""


def start(words: Sequence[str], stdout: int | IO[bytes], stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts a program in a session of its own, without input; `let_go` ends it, or what is left of it.

    Args:
      words: the command line.
      stdout: as of subprocess.Popen.
      stderr: as of subprocess.Popen.
    """
    # Ctrl-C is for this process, which ends the others in order.
    return subprocess.Popen(
        ["sh", "-c", _GUARD, "guard", *words],
        stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, start_new_session=True,
    )  # fmt: skip


def let_go(process: subprocess.Popen[Any]) -> None:
    """Kills a process that was started here, and what it may have left of its group."""
    if process.stdin is not None:
        process.stdin.close()
