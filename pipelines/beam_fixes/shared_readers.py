"""Keeps readers of streams beyond the DoFn that opened them: without this Flink opens one for each bundle.

Beam 2.77 keeps a reader between two bundles in the DoFn that had the first. A bundle whose checkpoint is not finalized
yet keeps its DoFn too, and the next bundle gets a new one, which knows of no reader: it opens another, while the first
holds on to messages that it has fetched ahead. Flink finalizes at its own checkpoints, many bundles later.
tests/pipelines/streams/test_readers.py has it.
"""

from __future__ import annotations

import threading
from typing import Any

from apache_beam.io import unbounded_source

_Cache = unbounded_source._ReaderCache


def share() -> None:
    """Has the pipelines that this process builds keep their readers in one place a worker. May be called again."""
    unbounded_source._ReadFromUnboundedSourceDoFn = SharingDoFn


class SharedReaders:
    """Takes the place of a DoFn's own cache of readers. The last one to be closed closes the readers."""

    _lock = threading.Lock()
    _users = 0
    _cache = _Cache()

    def __init__(self) -> None:
        with SharedReaders._lock:
            SharedReaders._users += 1

    def acquire(self, key: Any) -> Any:
        """Returns the reader that was parked under a key, and whether it was started; None if there is none."""
        return self._cache.acquire(key)

    def park(self, key: Any, reader: Any, started: bool) -> None:
        """Keeps a reader for the next bundle."""
        self._cache.park(key, reader, started)

    def close_all(self) -> None:
        """Closes the readers; Beam calls it when a DoFn is torn down."""
        with SharedReaders._lock:
            SharedReaders._users -= 1
            last = not SharedReaders._users
        if last:
            self._cache.close_all()


class SharingDoFn(unbounded_source._ReadFromUnboundedSourceDoFn):  # type: ignore[misc]  # Beam's classes are untyped
    """Reads a source as Beam's DoFn does. Workers find it by its name, so it does the same in other processes."""

    def setup(self) -> None:
        self._reader_cache = SharedReaders()
