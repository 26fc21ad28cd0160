"""Makes docs/images/demo.svg from what the demo really prints: `make picture`."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "demo.svg"
_WIDTH = 108
# What is typed, and what is run for it: make itself would print how it sets up the environment.
_COMMANDS = [
    ("make demo", [sys.executable, "-m", "pipelines.batch", "--config", "configs/natality.json"]),
    ("head -4 out/predictions-00000-of-00001.csv", ["head", "-4", "out/predictions-00000-of-00001.csv"]),
]


def main() -> int:
    """Runs the commands and draws what they print."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    for typed, command in _COMMANDS:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            print(done.stdout, file=sys.stderr)
            return done.returncode
        console.print(Text(f"$ {typed}", "bold green"))
        console.print(Text(done.stdout))
    PICTURE.parent.mkdir(exist_ok=True)
    # An id of its own choice keeps the file the same where the output is.
    svg = console.export_svg(title="TensorFlow predictions in data pipelines", unique_id="demo")
    PICTURE.write_text("".join(f"{line.rstrip()}\n" for line in svg.splitlines()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
