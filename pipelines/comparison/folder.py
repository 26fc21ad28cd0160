"""Keeps the folder of a comparison: one command at a time writes there, and only what it has made is removed."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from pipelines.config.errors import ConfigError
from pipelines.connectors.files.publishing.lock import Holder, Lock
from pipelines.connectors.files.publishing.place import Place, lock_place

INPUTS, OUTPUTS, LOGS = "inputs", "outputs", "logs"
_PARTS = [INPUTS, OUTPUTS, LOGS]
_LIST = ".made-by-compare"
"""In the folder `work`: lists what a comparison has made there."""
_LEAST_FREE = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ANOTHER = "give another folder with --output"


class ResultsFolder:
    """Holds the folder of a comparison; a context manager.

    Entering makes it, locks it, and makes in it the folder `work`, with what runs read and write. Leaving removes that;
    what was stopped keeps its inputs, for the command that goes on. What others have put there stays.

    Args:
      path: of the folder.
      name: of the comparison.

    Attributes:
      path: of the folder.
      work: the folder `work`.

    Raises:
      ConfigError: on entering: it cannot be made, another command holds it, or what is there is somebody else's; on
        leaving: its disk is full.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.work = path / "work"
        self._name = name
        self._lock: Lock | None = None
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        try:
            self._make(self.path)
            place = Place("folder", f"{self.path}{os.sep}", "")
            self._lock = lock_place(place, Holder.this_process(secrets.token_hex(4), self._name))
            self._make_work()
        except OSError as error:
            self._release()
            if error.errno in _FULL:
                raise self._full() from None
            why = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
            raise ConfigError([f"folder: {self.path} cannot be made or written to: {why}; {_ANOTHER}"]) from None
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_full = isinstance(error, OSError) and error.errno in _FULL
        if error is None or is_full or isinstance(error, ConfigError):
            self._remove_work()
        else:
            shutil.rmtree(self.work / OUTPUTS, ignore_errors=True)
        self._release()
        if is_full:
            raise self._full() from None

    def empty_work(self) -> None:
        """Removes what an earlier command has made for its runs."""
        self._remove_work()
        self._make_work()

    def require_room(self, needed: int) -> None:
        """Raises ConfigError if so many bytes of inputs are more than what is free on the disk."""
        free = shutil.disk_usage(self.work).free
        if needed > free:
            raise ConfigError(
                [
                    f"folder: the inputs of all sizes need {_in_words(needed)}, and {self.path} has {_in_words(free)} "
                    "free; compare smaller sizes (--set 'sizes=[...]'), or give a folder on another disk with --output"
                ]
            )

    def refuse_if_full(self, error: str) -> None:
        """Raises OSError if a run has failed with an error because the disk is full: that says nothing of its way."""
        if os.strerror(errno.ENOSPC) in error or shutil.disk_usage(self.work).free < _LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _make(self, folder: Path) -> None:
        """Makes a folder, and notes which ones were not there."""
        if not folder.is_dir():
            if folder.parent != folder:
                self._make(folder.parent)
            try:
                folder.mkdir()
            except FileExistsError:
                # Another command may have made it meanwhile.
                if not folder.is_dir():
                    raise
            else:
                self._made.append(folder)

    def _make_work(self) -> None:
        self.work.mkdir(exist_ok=True)
        listed = self._listed()
        for part in _PARTS:
            if part not in listed and os.path.lexists(self.work / part):
                raise ConfigError(
                    [f"folder: {self.work / part} is there, and no comparison has made it; move it away, or {_ANOTHER}"]
                )
        (self.work / _LIST).write_text(json.dumps(_PARTS) + "\n", "utf-8")
        for part in _PARTS:
            (self.work / part).mkdir(exist_ok=True)

    def _listed(self) -> list[str]:
        try:
            found = json.loads((self.work / _LIST).read_text("utf-8"))
        except (OSError, ValueError):
            return []
        return [part for part in _PARTS if part in found] if isinstance(found, list) else []

    def _remove_work(self) -> None:
        listed = self._listed()
        for part in listed:
            shutil.rmtree(self.work / part, ignore_errors=True)
        if listed:
            (self.work / _LIST).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.work.rmdir()

    def _release(self) -> None:
        """Gives the lock up; folders that were made for nothing go."""
        if self._lock is not None:
            self._lock.release()
        while self._made:
            with contextlib.suppress(OSError):
                self._made.pop().rmdir()

    def _full(self) -> ConfigError:
        return ConfigError(
            [
                f"folder: the disk of {self.path} is full; the inputs of runs were removed. Free space there, compare "
                "smaller sizes (--set 'sizes=[...]'), or give a folder on another disk with --output"
            ]
        )


def put_aside(path: Path) -> Path:
    """Renames a file so that nothing is replaced: `runs.jsonl` to `earlier-runs.jsonl`, `earlier-2-runs.jsonl`, ...

    Returns:
      Its new path.
    """
    for number in itertools.count(1):
        target = path.with_name(f"earlier-{path.name}" if number == 1 else f"earlier-{number}-{path.name}")
        if not os.path.lexists(target):
            break
    path.rename(target)
    return target


def _in_words(count: int) -> str:
    """Writes a number of bytes, such as `1.5 GB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,} bytes"
