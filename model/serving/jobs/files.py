"""Finds inputs of jobs and cuts them into pieces, and puts results in their places; local, or on Cloud Storage.

Local paths come from callers, so only those in folders that the command line allows are used.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from model.serving.errors import RequestError, Status, invalid

PIECE_BYTES = 256 << 10
MOST_LINE_BYTES = 10 << 20
_READ = 4 << 20


@dataclass(frozen=True)
class InputPiece:
    """Describes neighbouring lines, or records, of an input file.

    Attributes:
      file: name of the file.
      start: where they begin, in bytes.
      end: where they end.
    """

    file: str
    start: int
    end: int


class InputFiles(ABC):
    """Reads files of instances."""

    @abstractmethod
    def read(self, file: str, start: int, end: int) -> bytes:
        """Returns bytes of a file."""

    @abstractmethod
    def size(self, file: str) -> int:
        """Returns the size of a file."""


class JobFiles(InputFiles):
    """Finds and reads inputs, and puts results in their places."""

    @abstractmethod
    def matching(self, pattern: str) -> list[str]:
        """Returns the files of a pattern, sorted. Raises RequestError: it may not be read."""

    @abstractmethod
    def check_output(self, folder: str) -> None:
        """Raises RequestError: results may not be written there."""

    @abstractmethod
    def put(self, local: str, path: str) -> None:
        """Moves a local file to its place; nothing there is replaced."""

    def pieces(self, file: str) -> Iterator[InputPiece]:
        """Cuts a file into pieces of whole lines. Raises RequestError: a line is too long."""
        size, start, at = self.size(file), 0, 0
        while at < size:
            data = self.read(file, at, min(at + _READ, size))
            low = 0
            while (end := _line_end(data, low + PIECE_BYTES)) > low:
                yield InputPiece(file, start, at + end)
                start, low = at + end, end
            at += len(data)
            if at - start > MOST_LINE_BYTES and start < at - len(data):
                raise invalid(f"{file}: a line has more than {MOST_LINE_BYTES >> 20} MiB")
        if start < size:
            yield InputPiece(file, start, size)


def _line_end(data: bytes, wanted: int) -> int:
    """Finds the end of the last line that ends before `wanted`, or of the first behind it; 0 if none ends."""
    found = data.rfind(b"\n", 0, wanted) if wanted <= len(data) else -1
    return found + 1 if found >= 0 and wanted - found <= PIECE_BYTES else data.find(b"\n", max(wanted, 0)) + 1


class LocalFiles(JobFiles):
    """Uses files of this machine.

    Args:
      folders: real paths of the folders that may be used.
    """

    def __init__(self, folders: tuple[str, ...]) -> None:
        self._folders = folders

    def matching(self, pattern: str) -> list[str]:
        path = self._allowed(os.path.dirname(pattern) or ".")
        found = glob.glob(os.path.join(glob.escape(path), os.path.basename(pattern)))
        return sorted(file for file in found if os.path.isfile(file) and not os.path.islink(file))

    def read(self, file: str, start: int, end: int) -> bytes:
        with open(file, "rb") as opened:
            opened.seek(start)
            return opened.read(end - start)

    def size(self, file: str) -> int:
        return os.path.getsize(file)

    def check_output(self, folder: str) -> None:
        self._allowed(folder)

    def put(self, local: str, path: str) -> None:
        self._allowed(os.path.dirname(path))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path):
            raise FileExistsError(path)
        shutil.move(local, path)

    def _allowed(self, folder: str) -> str:
        real = os.path.realpath(folder)
        if not any(os.path.commonpath([real, allowed]) == allowed for allowed in self._folders):
            allowed = ", ".join(self._folders)
            raise RequestError(
                Status.FORBIDDEN, f"{folder} is not in a folder that jobs may use ({allowed}); see --job-folder"
            )
        return real


class StorageFiles(JobFiles):
    """Uses objects of Cloud Storage, or of the emulator that STORAGE_EMULATOR_HOST names."""

    def __init__(self) -> None:
        self._made: Any = None

    def matching(self, pattern: str) -> list[str]:
        bucket, _, name = pattern.removeprefix("gs://").partition("/")
        begin = name.partition("*")[0]
        blobs = self._client().list_blobs(bucket, prefix=begin)
        return sorted(f"gs://{bucket}/{blob.name}" for blob in blobs if fnmatch.fnmatchcase(blob.name, name))

    def read(self, file: str, start: int, end: int) -> bytes:
        return bytes(self._blob(file).download_as_bytes(start=start, end=end - 1))

    def size(self, file: str) -> int:
        blob = self._blob(file)
        blob.reload()
        return int(blob.size)

    def check_output(self, folder: str) -> None:
        bucket = folder.removeprefix("gs://").partition("/")[0]
        if not self._client().bucket(bucket).exists():
            raise RequestError(Status.NOT_FOUND, f"The specified bucket does not exist: {bucket}")

    def put(self, local: str, path: str) -> None:
        self._blob(path).upload_from_filename(local, if_generation_match=0)
        os.remove(local)

    def _blob(self, path: str) -> Any:
        bucket, _, name = path.removeprefix("gs://").partition("/")
        return self._client().bucket(bucket).blob(name)

    def _client(self) -> Any:
        if self._made is None:
            from google.auth.credentials import AnonymousCredentials
            from google.cloud import storage  # type: ignore[attr-defined]

            local = {"credentials": AnonymousCredentials(), "project": "local"}  # type: ignore[no-untyped-call]
            self._made = storage.Client(**(local if os.environ.get("STORAGE_EMULATOR_HOST") else {}))
        return self._made


class AnyFiles(JobFiles):
    """Uses either, as a path says.

    Args:
      folders: real paths of the local folders that may be used.
    """

    def __init__(self, folders: tuple[str, ...]) -> None:
        self._local = LocalFiles(folders)
        self._storage = StorageFiles()

    def matching(self, pattern: str) -> list[str]:
        return self._of(pattern).matching(plain(pattern))

    def read(self, file: str, start: int, end: int) -> bytes:
        return self._of(file).read(file, start, end)

    def size(self, file: str) -> int:
        return self._of(file).size(file)

    def check_output(self, folder: str) -> None:
        self._of(folder).check_output(plain(folder))

    def put(self, local: str, path: str) -> None:
        self._of(path).put(local, plain(path))

    def _of(self, path: str) -> JobFiles:
        return self._storage if path.startswith("gs://") else self._local


def plain(path: str) -> str:
    """Returns a local path without its scheme."""
    return path.removeprefix("file://")
