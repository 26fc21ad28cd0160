"""Does what the emulators of stores have in common: one bucket, `bucket`, and the environment of commands."""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path


class Bucket(ABC):
    """A bucket of an emulator.

    Attributes:
      url: of the emulator.
      root: the bucket's path, such as gs://bucket.
      env: the environment of a process that uses the emulator.
    """

    root: str

    def __init__(self, url: str, env: dict[str, str]) -> None:
        self.url, self.env = url, env

    @abstractmethod
    def put(self, name: str, content: bytes) -> None:
        """Makes an object."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of an object."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Deletes an object."""

    @abstractmethod
    def names(self, prefix: str = "") -> list[str]:
        """The names of the objects, sorted."""

    def put_folder(self, name: str, folder: Path) -> None:
        """Makes objects of the files in a folder, and in those below."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{name}/{path.relative_to(folder)}", path.read_bytes())

    def download(self, prefix: str, folder: Path) -> None:
        """Makes files of the objects whose names begin with a prefix."""
        for name in self.names(prefix):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(name))


def wait_for(answers: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Waits until an emulator answers."""
    for _ in range(1200):
        try:
            answers()
            return
        except OSError:
            assert process.poll() is None, "the emulator has ended"
            time.sleep(0.05)
    raise AssertionError("the emulator does not answer")
