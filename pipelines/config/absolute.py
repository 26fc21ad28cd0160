"""Completes relative paths before a job goes to other processes, whose working directories are others."""

from __future__ import annotations

import os
from typing import Any

from model import packaged
from pipelines.config.bigquery import BigQueryOutput
from pipelines.config.files import DeadLetters
from pipelines.config.paths import with_paths
from pipelines.config.run import RunConfig


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Returns a config with absolute paths, of what is in the working directory or packaged.

    Places that a config does not name, as they are by default, are named in it.
    """
    changed: dict[str, Any] = {}
    if isinstance(config.dead_letters, DeadLetters) and config.dead_letters.path is None:
        changed["dead_letters"] = config.dead_letters.model_copy(update={"path": config.dead_letters_path})
    if isinstance(config.output, BigQueryOutput) and config.is_batch and config.output.staging is None:
        changed["output"] = config.output.model_copy(update={"staging": config.output.staging_folder})
    completed: RunConfig = with_paths(config.model_copy(update=changed), absolute)
    return completed


def absolute(path: str) -> str:
    """Returns the absolute path of what is in the working directory, or packaged; what ends in a slash stays a folder.

    >>> absolute("out/") == os.path.abspath("out") + "/", absolute("gs://bucket/x")
    (True, 'gs://bucket/x')
    """
    if not path or "://" in path:
        return path
    # What ends in a slash is a folder, which abspath would forget.
    return os.path.abspath(packaged.located(path)) + ("/" if path.endswith("/") else "")
