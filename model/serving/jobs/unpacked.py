"""Reads files of instances that are packed with gzip, from copies that are not."""

from __future__ import annotations

import os
import zlib

from model.serving.jobs.files import InputFiles
from model.serving.jobs.records import DamagedRecordsError

_READ = 1 << 20
_MOST_BYTES = 16 << 30
_GZIP = zlib.MAX_WBITS | 16


class UnpackedFiles(InputFiles):
    """Makes a copy of a file when its size is asked for, which is before it is read.

    Args:
      files: that are packed.
      folder: for the copies.
    """

    def __init__(self, files: InputFiles, folder: str) -> None:
        self._files = files
        self._folder = folder
        self._copies: dict[str, str] = {}

    def size(self, file: str) -> int:
        """Returns the size of a file, unpacked. Raises DamagedRecordsError: it is not gzip to its end."""
        if file not in self._copies:
            copy = os.path.join(self._folder, f"unpacked-{len(self._copies)}")
            self._unpack(file, copy)
            self._copies[file] = copy
        return os.path.getsize(self._copies[file])

    def read(self, file: str, start: int, end: int) -> bytes:
        with open(self._copies[file], "rb") as opened:
            opened.seek(start)
            return opened.read(end - start)

    def _unpack(self, file: str, copy: str) -> None:
        size, at, unpacker = self._files.size(file), 0, zlib.decompressobj(_GZIP)
        with open(copy, "wb") as opened:
            while at < size:
                data = self._files.read(file, at, min(at + _READ, size))
                at += len(data)
                if not data:
                    raise _damaged(file, "it became shorter")
                while data:
                    if unpacker.eof:
                        unpacker = zlib.decompressobj(_GZIP)
                    try:
                        opened.write(unpacker.decompress(data, _READ))
                    except zlib.error as error:
                        raise _damaged(file, str(error)) from None
                    data = unpacker.unused_data or unpacker.unconsumed_tail
                    if opened.tell() > _MOST_BYTES:
                        raise _damaged(file, f"it has more than {_MOST_BYTES >> 30} GiB")
        if size and not unpacker.eof:
            raise _damaged(file, "it ends too early")


def _damaged(file: str, problem: str) -> DamagedRecordsError:
    return DamagedRecordsError(f"{file}: unpacking it failed: {problem}; nothing of it was read")
