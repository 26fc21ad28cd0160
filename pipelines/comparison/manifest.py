"""Says what a comparison ran on: machine, versions, hashes of model and config."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from inference.saved_model import files as model_files
from model.secrets import masked
from model.version import PROJECT, __version__
from pipelines.comparison.results import ComparisonManifest, Machine, Run
from pipelines.plan import Plan

_LIBRARIES = ("apache-beam", "tensorflow", "pyarrow", "numpy")
_BLOCK = 1 << 20


def machine() -> Machine:
    """Describes the machine that this process runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        cpu=_processor(),
        cores=cores,
        memory_gb=round(_memory() / (1 << 30), 1),
        system=f"{platform.system()} {platform.release()}",
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int:
    """Bytes of memory that this process may use: those of its container, if it has fewer than the machine."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return total
    return min(limit, total)


def hash_of_model(path: str) -> str:
    """Returns the SHA-256 of a SavedModel's files, names included; empty if it is on a server."""
    if not path or not os.path.isdir(path):
        return ""
    found = hashlib.sha256()
    for file in sorted(each for each in Path(path).rglob("*") if each.is_file()):
        found.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                found.update(block)
    return found.hexdigest()


def hash_of(content: Any) -> str:
    """Returns the SHA-256 of what a config says."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def command_line(given: Sequence[str]) -> str:
    """Returns a command line as it was typed, without the folders of this machine.

    Args:
      given: `sys.argv`.

    >>> command_line(["/home/me/pipelines/compare.py", "--minutes", "1"])
    'python -m pipelines.compare --minutes 1'
    >>> command_line(["/home/me/.venv/bin/beam-tf-predict", "compare", "--minutes", "1"])
    'beam-tf-predict compare --minutes 1'
    """
    program = Path(given[0])
    if program.name == PROJECT:
        return shlex.join([PROJECT, *given[1:]])
    name = program.stem if program.parent.name == "pipelines" else "compare"
    module = "pipelines" if name == "__main__" else f"pipelines.{name}"
    return shlex.join(["python", "-m", module, *given[1:]])


def manifest_of(
    plan: Plan, config_path: str, config_hash: str, source: str, runs: Iterable[Run], times: tuple[str, str]
) -> ComparisonManifest:
    """Makes the manifest of a comparison.

    Args:
      plan: of the run that it is based on.
      config_path: of the comparison.
      config_hash: of its content.
      source: the source in words.
      runs: all runs.
      times: when the first began, when the last ended.
    """
    model = plan.model.path if plan.config.model.type == "saved_model" else ""
    versions = {"python": platform.python_version(), "beam-tf-predict": __version__}
    return ComparisonManifest(
        begun=times[0],
        ended=times[1],
        command=masked(command_line(sys.argv)),
        config=config_path,
        config_hash=config_hash,
        model=masked(plan.model.path),
        model_hash=hash_of_model(model_files.resolve(model)) if model and "://" not in model else "",
        source=masked(source),
        machine=machine(),
        versions=versions | {name: importlib.metadata.version(name) for name in _LIBRARIES},
        seconds=sum(run.elapsed_s for run in runs),
    )
