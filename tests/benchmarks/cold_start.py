"""How long the commands take to answer, from the shell's point of view."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass

from tests.benchmarks import harness
from tests.benchmarks.contest import ContestError

COMMANDS: list[tuple[str, list[str], int, float | None]] = [
    ("pipelines.batch --help", ["pipelines.batch", "--help"], 0, 1.0),
    ("a config error", ["pipelines.batch", "--set", "source.fromat=csv"], 2, 2.0),
    ("pipelines.check", ["pipelines.check"], 0, None),
]
"""What it is called, the module with its arguments, the exit code to expect, the limit in seconds."""


@dataclass(frozen=True)
class Start:
    """Wall times of one command."""

    name: str
    seconds: list[float]
    limit: float | None

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.seconds)


def measure(repeats: int) -> list[Start]:
    """Times each command `repeats` times, after a run that is not counted.

    Raises:
      ContestError: a command has another exit code than it should.
    """
    starts = []
    for name, command, code, limit in COMMANDS:
        seconds = []
        for _ in range(repeats + 1):
            finished = harness.run([sys.executable, "-m", *command], timeout=120, env={})
            if finished.code != code:
                raise ContestError(f"{name} ended with {finished.code}, not {code}:\n{finished.err.strip()}")
            seconds.append(finished.seconds)
        starts.append(Start(name, seconds[1:], limit))
    return starts
