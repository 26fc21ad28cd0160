"""The environment of the engines to compare with: `.venv-bench`, made on first use."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

_FOLDER = Path(".venv-bench")
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python() -> str:
    """The interpreter of an environment that has exactly what requirements.txt asks for."""
    made = _FOLDER / ".installed"
    wanted = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    interpreter = str(_FOLDER / "bin" / "python")
    if not made.exists() or made.read_text() != wanted:
        print(f"setting up {_FOLDER} (about a minute, 3 GB) ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(_FOLDER)], check=True)
        uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--python", interpreter]
        subprocess.run([*uv, "-r", str(_REQUIREMENTS)], check=True)
        made.write_text(wanted)
    return interpreter
