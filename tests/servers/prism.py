"""Beam's Prism, as a program: built with Go on first use, into .tools, where `--runner PrismRunner` finds it.

`python -m tests.servers.prism` builds it for a person.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_TOOLS = Path(__file__).resolve().parent.parent.parent / ".tools"
_VERSION = "v2.77.0"


def built_prism() -> str:
    """The program."""
    program = _TOOLS / "prism"
    _TOOLS.mkdir(exist_ok=True)
    with open(_TOOLS / "prism.lock", "wb") as file:
        # Tests run in several processes.
        fcntl.flock(file, fcntl.LOCK_EX)
        if not program.exists():
            if shutil.which("go") is None:
                pytest.skip("Prism is built with Go, which is not installed")
            print("building Prism (two minutes the first time) ...", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=_TOOLS) as folder:
                source = f"github.com/apache/beam/sdks/v2/go/cmd/prism@{_VERSION}"
                subprocess.run(["go", "install", source], env={**os.environ, "GOBIN": folder}, check=True)
                os.replace(Path(folder) / "prism", program)
    return str(program)


if __name__ == "__main__":
    print(built_prism())
