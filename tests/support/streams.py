"""Runs streams: their arguments, what they have written, births as messages."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.connectors.simulated.natality import births_at
from tests.support import processes
from tests.support.commands import ROOT
from tests.support.waiting import wait_until


def sets(folder: Path, **values: Any) -> list[str]:
    """Returns arguments that write into a folder and change a config's values; __ stands for a dot."""
    found = {"output.path": f"{folder}/out/p", "dead_letters.path": f"{folder}/out/d", "output.show": 0}
    found |= {name.replace("__", "."): value for name, value in values.items()}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}
    return [part for name, text in texts.items() for part in ("--set", f"{name}={text}")]


def written(folder: Path) -> list[dict[str, str]]:
    """Returns the rows of the published files."""
    return [row for path in sorted((folder / "out").glob("p-*.csv")) for row in csv.DictReader(path.open())]


def dead_letters(folder: Path) -> list[dict[str, Any]]:
    """Returns the published dead letters."""
    return [json.loads(line) for path in sorted((folder / "out").glob("d-*.jsonl")) for line in path.open()]


def hidden(folder: Path) -> list[Path]:
    """Returns the files that are not published."""
    return list((folder / "out").glob(".*"))


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts a stream of simulated births that does not end by itself."""
    command = [sys.executable, "-m", "pipelines.stream", *sets(folder, source__messages=None), *arguments]
    return processes.start(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(folder: Path, rows: int, process: subprocess.Popen[str]) -> None:
    """Waits until so many rows are on the disk, published or not. Ends the process if they do not come."""

    def found() -> bool:
        files = [*(folder / "out").glob("p-*.csv"), *(folder / "out").glob(".p-*.part")]
        return sum(path.read_bytes().count(b"\n") for path in files if path.exists()) > rows

    try:
        wait_until(lambda: found() or process.poll() is not None, f"{rows} rows are written")
        assert found(), f"the process ended with code {process.returncode}"
    except AssertionError as error:
        process.kill()
        raise AssertionError(f"{error}: {process.communicate()[1][-3000:]}") from error


def births(count: int, first: int = 0, seed: int = 1) -> list[bytes]:
    """Returns the first births of the simulation as messages, from one on; their time is now."""
    numbers = np.arange(first, first + count)
    return [payload.as_py() for payload in births_at(numbers, seed, np.full(count, time.time_ns() // 1000))]


def keys(count: int, first: int = 0) -> set[str]:
    """Returns the keys of such births."""
    return {f"b{n:09d}" for n in range(first, first + count)}
