"""Paths that mean the same wherever a worker runs: a relative one is completed before a job goes to other processes."""

from __future__ import annotations

import os
from typing import Any

from model import packaged

_PATHS = (
    ("source", "path"),
    ("source", "security", "ca_file"),
    ("source", "security", "certificate_file"),
    ("source", "security", "key_file"),
    ("model", "path"),
    ("model", "folder"),
    ("model", "signature_from"),
    ("model", "op_libraries"),
    ("model", "ca_file"),
    ("output", "path"),
    ("output", "security", "ca_file"),
    ("output", "security", "certificate_file"),
    ("output", "security", "key_file"),
    ("dead_letters", "path"),
    ("dead_letters", "security", "ca_file"),
    ("dead_letters", "security", "certificate_file"),
    ("dead_letters", "security", "key_file"),
)
"""What workers open."""


def with_absolute_paths(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of a config with absolute paths, of what is in the working directory or packaged.

    >>> found = with_absolute_paths({"output": {"path": "out/p", "format": "csv"}, "source": {"path": "gs://b/x"}})
    >>> found["output"]["path"] == os.path.abspath("out/p"), found["source"]["path"]
    (True, 'gs://b/x')
    """
    for path in _PATHS:
        content = _with(content, path)
    return content


def _with(content: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    name, *others = path
    if name not in content:
        return content
    value = content[name]
    if not others:
        return {**content, name: _absolute(value)}
    return {**content, name: _with(value, tuple(others))} if isinstance(value, dict) else content


def _absolute(value: Any) -> Any:
    if isinstance(value, list):
        return [_absolute(item) for item in value]
    if not isinstance(value, str) or not value or "://" in value:
        return value
    # What ends in a slash is a folder, which abspath would forget.
    return os.path.abspath(packaged.located(value)) + ("/" if value.endswith("/") else "")
