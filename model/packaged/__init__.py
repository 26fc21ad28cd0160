"""Finds the files that travel with the packages: configs to begin with, births to predict, and the trained model.

They have the same names everywhere, those of the checkout; `setup.py` maps two of its folders into this package.

| name | in a checkout | installed from a wheel |
|---|---|---|
| `configs/natality.json` | `configs/natality.json` | `model/packaged/configs/natality.json` |
| `data/births-nc-2001.csv` | `data/births-nc-2001.csv` | `model/packaged/data/births-nc-2001.csv` |
| `model/trained/v1` | `model/trained/v1` | `model/trained/v1` |
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_PACKAGES = _HERE.parents[1]
_MAPPED = ("configs", "data")


def find(name: str) -> str | None:
    """Returns the path of a packaged file or folder; None if there is none of this name.

    Args:
      name: as in the checkout; may be a glob, for which a glob is returned.

    >>> os.path.basename(find("data/births-nc-2001.csv"))
    'births-nc-2001.csv'
    >>> find("data/births-of-mars-*.csv")
    """
    name = os.path.normpath(name)
    first = name.split("/")[0]
    if first not in (*_MAPPED, "model"):
        return None
    root = str(_root(first))
    path = os.path.join(root, name)
    if os.path.exists(path):
        return path
    pattern = os.path.join(glob.escape(root), name)
    return pattern if glob.glob(pattern) else None


def located(name: str) -> str:
    """Returns a path as it is if there is something or if it is not relative; else that of the packaged file, if any.

    >>> located("no/such/file")
    'no/such/file'
    """
    is_here = os.path.isabs(name) or "://" in name or os.path.exists(name) or bool(glob.glob(name, recursive=True))
    return name if is_here else find(name) or name


def name_of(path: str) -> str | None:
    """Returns the name of a packaged file or folder, by which `find` finds it on another machine; None for others.

    >>> name_of(find("model/trained/v1")), name_of("/tmp/model/trained/v1")
    ('model/trained/v1', None)
    """
    if not os.path.isabs(path):
        return None
    for first in (*_MAPPED, "model"):
        folder = _root(first) / first
        if Path(path).is_relative_to(folder):
            return str(Path(path).relative_to(folder.parent))
    return None


def is_installed() -> bool:
    """Tells whether the project was installed from a wheel, rather than run from a checkout."""
    return _root(_MAPPED[0]) == _HERE


def _root(first: str) -> Path:
    """Returns the folder that has a packaged folder of this name in it."""
    return _HERE if first in _MAPPED and (_HERE / first).is_dir() else _PACKAGES
