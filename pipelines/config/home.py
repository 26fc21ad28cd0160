"""Paths that begin with `~`, the home folder: a shell does not expand them in a config, nor behind an equals sign."""

from __future__ import annotations

import os
from typing import Any

_PATHS = (
    ("source", "path"),
    ("model", "path"),
    ("model", "signature_from"),
    ("output", "path"),
    ("dead_letters", "path"),
)


def expanded(path: str) -> str:
    """Returns a path with the home folder in place of a `~` (or `~user`) that it begins with.

    >>> expanded("data/~.csv"), expanded("gs://bucket/~/x")
    ('data/~.csv', 'gs://bucket/~/x')
    """
    return os.path.expanduser(path)


def with_home(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of a config with the home folder in its paths; what is no path there stays as it is."""
    content = dict(content)
    for part, name in _PATHS:
        values = content.get(part)
        if isinstance(values, dict) and name in values:
            content[part] = {**values, name: _expanded(values[name])}
    return content


def _expanded(value: Any) -> Any:
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    return expanded(value) if isinstance(value, str) else value
