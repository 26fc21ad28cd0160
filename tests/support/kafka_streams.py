"""Runs streams that read from Kafka."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.servers.kafka import Broker, Record
from tests.support import processes
from tests.support.commands import ROOT
from tests.support.streams import births, sets

CONFIG = ["--config", "configs/natality-kafka.json"]


def records(count: int, first: int = 0) -> list[Record]:
    """Births with record keys, by which they are spread over partitions."""
    return [(f"r{first + n}".encode(), payload) for n, payload in enumerate(births(count, first))]


def source(broker: Broker, of: str | list[str], **more: Any) -> dict[str, Any]:
    """Returns the config of a source; what is None is left out."""
    group = f"group-{of if isinstance(of, str) else of[0]}"
    found = {"type": "kafka", "bootstrap_servers": broker.address, "topic": of, "group": group, "key": "source_id"}
    return {name: value for name, value in {**found, **more}.items() if value is not None}


def start(folder: Path, source: dict[str, Any], *arguments: str, **changes: Any) -> subprocess.Popen[str]:
    """Starts a stream."""
    command = [sys.executable, "-m", "pipelines.stream", *CONFIG, *sets(folder, source=source, **changes), *arguments]
    return processes.start(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Ends a stream in order; gives what it said."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, err
