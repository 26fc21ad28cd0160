"""Unpacks compressed files of any number of members, as gunzip, bunzip2 and unzstd do.

| behind the last member | |
|---|---|
| nothing, or zeros, as tapes and object stores leave them | the end |
| the beginning of another member | read on |
| anything else | all before it is read, then `failure` says so |
"""

from __future__ import annotations

import bz2
import io
import zlib
from collections.abc import Callable
from typing import IO, Any, Protocol

_READ_BYTES = 1 << 20
_PORTION_BYTES = 4096
_ZSTD_PORTION_BYTES = 1024
"""zstd says at once all that so many bytes become: 32 MiB at most."""


class _Member(Protocol):
    """Unpacks one member of a file."""

    portion: int
    """Bytes that are best given at a time."""

    @property
    def eof(self) -> bool:
        """Tells whether the member has ended."""

    def feed(self, data: memoryview, count: int) -> tuple[bytes, int, bytes]:
        """Unpacks about `count` bytes. Raises one of FAILURES.

        Returns:
          The unpacked bytes, how many bytes of `data` were taken, and those of all taken so far that are given back.
        """


class _Gzip:
    def __init__(self) -> None:
        self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
        # zlib gives back a copy of what is behind the end of a member: of many small ones, that is to be little.
        self.portion = _PORTION_BYTES

    @property
    def eof(self) -> bool:
        return self._unpack.eof

    def feed(self, data: memoryview, count: int) -> tuple[bytes, int, bytes]:
        piece = self._unpack.decompress(data, count)
        self.portion = min(2 * self.portion, _READ_BYTES)
        return piece, len(data), self._unpack.unused_data if self.eof else self._unpack.unconsumed_tail


class _Bzip2:
    portion = 1 << 16

    def __init__(self) -> None:
        self._unpack = bz2.BZ2Decompressor()

    @property
    def eof(self) -> bool:
        return self._unpack.eof

    def feed(self, data: memoryview, count: int) -> tuple[bytes, int, bytes]:
        if not self._unpack.needs_input:
            data = data[:0]
        piece = self._unpack.decompress(data, count)
        return piece, len(data), self._unpack.unused_data


class _Zstd:
    portion = _ZSTD_PORTION_BYTES

    def __init__(self) -> None:
        import zstandard

        self._unpack: Any = zstandard.ZstdDecompressor().decompressobj()

    @property
    def eof(self) -> bool:
        return bool(self._unpack.eof)

    def feed(self, data: memoryview, count: int) -> tuple[bytes, int, bytes]:
        import zstandard

        try:
            piece = self._unpack.decompress(data)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
        return piece, len(data), self._unpack.unused_data


FAILURES = (OSError, EOFError, ValueError, zlib.error)
_MEMBERS: dict[str, Callable[[], _Member]] = {"gzip": _Gzip, "bz2": _Bzip2, "zstd": _Zstd}


class ConvertedFile(io.RawIOBase):
    """Reads bytes made of those of another file, piece by piece.

    Args:
      file: the other file, at its beginning; closed with this.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._ahead = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def read(self, count: int = -1) -> bytes:
        """Returns the next `count` bytes, fewer only before the end or a failure."""
        out = io.BytesIO()
        while (left := count - out.tell()) > 0:
            self._ahead = self._ahead or memoryview(self.convert(left))
            if not self._ahead:
                break
            out.write(self._ahead[:left])
            self._ahead = self._ahead[left:]
        return out.getvalue()

    def convert(self, count: int) -> bytes:
        """Converts a little more, about `count` bytes; gives nothing at the end and after a failure."""
        raise NotImplementedError


class Beginning(io.RawIOBase):
    """Reads the first bytes of a file: what is appended to the file meanwhile is not seen."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        piece = self._file.read(self._left if count < 0 else min(count, self._left))
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        self._file.close()
        super().close()


class Unpacked(ConvertedFile):
    """Reads the unpacked bytes of a file.

    Args:
      file: the file, at its beginning; closed with this.
      compression: gzip, bz2 or zstd.

    Attributes:
      failure: why there is nothing more, if that is an error; all before it was given.
      garbage: the first bytes of what is behind the last member, if that is the error.
    """

    def __init__(self, file: IO[bytes], compression: str) -> None:
        super().__init__(file)
        self.failure = ""
        self.garbage = b""
        self._compression = compression
        self._packed = memoryview(b"")
        self._member: _Member | None = None
        self._members = 0
        self._silent = True

    def convert(self, count: int) -> bytes:
        while not self.failure:
            if not self._packed:
                self._packed = memoryview(self._file.read(_READ_BYTES))
            if self._member is None or self._member.eof:
                if self._members:
                    self._skip_padding()
                if not self._packed:
                    return b""
                self._member, self._silent = _MEMBERS[self._compression](), True
                self._members += 1
            ended = not self._packed
            try:
                piece, taken, back = self._member.feed(self._packed[: self._member.portion], count)
            except FAILURES as error:
                self._fail(error)
                return b""
            if len(back) <= taken:
                self._packed = self._packed[taken - len(back) :]
            else:
                self._packed = memoryview(back + self._packed[taken:])
            if piece:
                self._silent = False
                return piece
            if ended and not self._member.eof:
                self.failure = f"the file ends early ({self._compression})"
        return b""

    def _fail(self, error: Exception) -> None:
        if self._members > 1 and self._silent:
            self.garbage = bytes(self._packed)
            self.failure = f"what follows the end of the {self._compression} data is none of it"
        else:
            self.failure = f"the file does not unpack ({self._compression}): {error}"

    def _skip_padding(self) -> None:
        """Passes the zeros behind a member."""
        while self._packed and not self._packed[0]:
            rest = bytes(self._packed).lstrip(b"\0")
            self._packed = memoryview(rest or self._file.read(_READ_BYTES))
