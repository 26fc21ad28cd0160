"""Expands `~`, the home folder, in a config's paths: a shell does not do so there, nor behind an equals sign."""

from __future__ import annotations

import os


def expanded(path: str) -> str:
    """Returns a path with the home folder in place of a `~` (or `~user`) that it begins with.

    >>> expanded("data/~.csv"), expanded("gs://bucket/~/x")
    ('data/~.csv', 'gs://bucket/~/x')
    """
    return os.path.expanduser(path)
