"""Holds what end-to-end tests share: commands that were run, models that were saved."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import processes

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out[-2000:]}\n{self.err[-2000:]}"

    @property
    def summary(self) -> dict[str, Any]:
        """Returns what --json printed."""
        return dict(json.loads(self.out))

    @property
    def errors(self) -> list[str]:
        """Returns the lines of standard error that report a problem."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


Command = Callable[..., Result]
"""Runs `pipelines.<module>` with arguments: the type of the fixture `command`."""


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts `pipelines.<module>` in a process of its own, from the repository's root."""
    return processes.start(
        [sys.executable, "-m", f"pipelines.{module}", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def save(module: Any, folder: Path) -> str:
    """Exports a module's __call__ as serving_default."""
    import tensorflow as tf

    tf.saved_model.save(module, str(folder), {"serving_default": module.__call__.get_concrete_function()})
    return str(folder)
