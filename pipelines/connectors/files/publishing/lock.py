"""Locks a prefix: one run at a time may publish under it.

On this machine's file systems it is a lock of the operating system on the file `.p.lock`, which ends with the process
that holds it. Elsewhere it is a lease: an object `.p.lock-<run>` that its holder writes again every half minute.
Whoever comes writes an object of its own first and then looks for others, so of two that come at once at most one goes
on. A lease that was not renewed for three minutes, by the clock of the store, is over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import stat
import threading
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from pipelines import storage
from pipelines.connectors.files.publishing import shards

_RENEW_S = 30.0
_OVER_S = 180.0
_MOST_BYTES = 64 << 10
_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)
"""What file systems answer that have no locks, such as object stores that are mounted as folders."""


@dataclass(frozen=True)
class Holder:
    """Describes who holds a lock.

    Attributes:
      run: id of the run.
      name: its name, from its config.
      host: the machine of the command.
      pid: the process of the command.
      since: when it began, ISO 8601, UTC.
    """

    run: str
    name: str
    host: str
    pid: int
    since: str

    @classmethod
    def this_process(cls, run: str, name: str) -> Holder:
        """Describes a run of this process."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(run, name, socket.gethostname(), os.getpid(), now)

    def __str__(self) -> str:
        return f"run '{self.name}' ({self.run}, process {self.pid} on {self.host}, since {self.since})"


class InUseError(Exception):
    """Raised when another run holds the lock."""


class Lock(ABC):
    """Locks one prefix for a run."""

    def __init__(self, prefix: str, holder: Holder) -> None:
        self.prefix = prefix
        self.holder = holder

    @abstractmethod
    def release(self) -> None:
        """Gives the lock up. May be called twice."""


def acquire(prefix: str, holder: Holder) -> Lock:
    """Takes the lock of a prefix, whose folder is there.

    Raises:
      InUseError: another run has it; the message says which.
      OSError: the file system does not allow it.
    """
    if storage.is_remote(prefix):
        return _Lease(prefix, holder)
    try:
        return _FileLock(prefix, holder)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return _Lease(prefix, holder)


def holder_of(prefix: str, run: str) -> str:
    """Tells which run's lock is in place: `run`, if it is that one's; else what is known of the other, "" for none."""
    if storage.size_of(_lease_path(prefix, run)) is not None:
        return run
    found = None if storage.is_remote(prefix) else _read(shards.hidden_path(prefix, "lock"))
    return found.run if found else ""


def _read(path: str) -> Holder | None:
    try:
        content = storage.read_small(path, _MOST_BYTES)
        return Holder(**json.loads(content)) if content else None
    except (ValueError, TypeError, OSError):
        return None


class _FileLock(Lock):
    def __init__(self, prefix: str, holder: Holder) -> None:
        super().__init__(prefix, holder)
        self._path = shards.hidden_path(prefix, "lock")
        self._file: int | None = self._take()

    def _take(self) -> int:
        while True:
            number = self._open()
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between opening and locking, the holder may have ended and removed the file.
                if self._is_in_place(number):
                    os.ftruncate(number, 0)
                    os.pwrite(number, json.dumps(asdict(self.holder)).encode(), 0)
                    return number
            except BlockingIOError:
                os.close(number)
                raise InUseError(str(_read(self._path) or "another run")) from None
            except BaseException:
                os.close(number)
                raise
            os.close(number)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        number = os.open(self._path, flags, 0o666)
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise OSError(f"{self._path} is not a regular file; remove it")
        return number

    def _is_in_place(self, number: int) -> bool:
        try:
            return os.path.samestat(os.fstat(number), os.lstat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        number, self._file = self._file, None
        if number is None:
            return
        try:
            if self._is_in_place(number):
                os.remove(self._path)
        except OSError:
            pass  # the folder is gone, or is no longer ours to write to; the lock ends with the file
        os.close(number)


def _lease_path(prefix: str, run: str) -> str:
    return shards.hidden_path(prefix, f"lock-{run}")


class _Lease(Lock):
    def __init__(self, prefix: str, holder: Holder) -> None:
        super().__init__(prefix, holder)
        self._path = _lease_path(prefix, holder.run)
        self._content = json.dumps(asdict(holder)).encode()
        self._ended = threading.Event()
        self._try_out()
        storage.write_whole(self._path, self._content)
        try:
            self._look_for_others()
        except BaseException:
            storage.delete([self._path])
            raise
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def _try_out(self) -> None:
        """Makes sure before a run, and not at its end, that files can be written and deleted here."""
        storage.write_whole(self._path, self._content)
        storage.delete([self._path])

    def _look_for_others(self) -> None:
        begin = shards.hidden_path(self.prefix, "lock-")
        ages = {
            path: seconds for path, seconds in storage.updated(begin) if re.fullmatch("[0-9a-f]{8}", path[len(begin) :])
        }
        now = ages.get(self._path)
        if now is None:
            raise OSError(f"{self._path}: was written, and is not there; is another run removing it?")
        for path, seconds in ages.items():
            if path == self._path:
                continue
            if now - seconds < _OVER_S:
                raise InUseError(str(_read(path) or path))
            storage.delete([path])

    def _renew(self) -> None:
        while not self._ended.wait(_RENEW_S):
            try:
                # One that another run has ended stays so: publishing looks for it.
                if storage.size_of(self._path) is None:
                    return
                storage.write_whole(self._path, self._content)
            except Exception:
                continue

    def release(self) -> None:
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join(_RENEW_S)
        try:
            storage.delete([self._path])
        except OSError:
            pass  # nobody renews it: it is over in a while
