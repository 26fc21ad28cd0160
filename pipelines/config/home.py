"""Paths that begin with `~`, the home folder: a shell does not expand them in a config, nor behind an equals sign."""

from __future__ import annotations

import os


def expanded(path: str) -> str:
    """Returns a path with the home folder in place of a `~` (or `~user`) that it begins with.

    >>> expanded("data/~.csv"), expanded("gs://bucket/~/x")
    ('data/~.csv', 'gs://bucket/~/x')
    """
    return os.path.expanduser(path)
