"""Runs streams that read from Pub/Sub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.servers.pubsub_emulator import SUBSCRIPTION
from tests.support import processes
from tests.support.commands import ROOT
from tests.support.streams import sets

CONFIG = ["--config", "configs/natality-pubsub.json"]


SOURCE = {"type": "pubsub", "subscription": SUBSCRIPTION}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts a stream."""
    command = [sys.executable, "-m", "pipelines.stream", *CONFIG, *sets(folder), *arguments]
    return processes.start(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
