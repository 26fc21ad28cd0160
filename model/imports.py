"""Keeps pandas and pymongo out of a command's process: Beam and pyarrow import them if they are there, for nothing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import Any

_HIDDEN = frozenset({"pandas", "pymongo", "bson"})


class _Finder:
    """The import system's finder of modules on sys.path, for which some packages are not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Finds a module, as `importlib` wants it."""
        return None if name in _HIDDEN else PathFinder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(PathFinder, name)


@contextmanager
def without_unused() -> Iterator[None]:
    """Hides packages from imports while the block runs: a third of Beam's import is pandas.

    It is for commands, whose process ends with them. What is imported already stays; afterwards everything can be
    imported as before.
    """
    finders: list[Any] = sys.meta_path
    if PathFinder not in finders:
        yield
        return
    hiding = _Finder()
    finders[finders.index(PathFinder)] = hiding
    try:
        yield
    finally:
        if hiding in finders:
            finders[finders.index(hiding)] = PathFinder


@contextmanager
def uncollected() -> Iterator[None]:
    """Lets the collector of cycles rest while the block runs: an import makes many objects, and next to no garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
