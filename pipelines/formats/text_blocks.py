"""Cuts text files into blocks of whole rows, unpacked where they are compressed.

Whatever a file holds, a block has at most MAX_ROW_BYTES + BLOCK_BYTES, and each byte is looked at a bounded number of
times: of a row that is longer, only the next line end is looked for.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import IO, Any, cast

import numpy as np

from pipelines import storage
from pipelines.encodings import is_utf16
from pipelines.formats.base import BLOCK_BYTES, MAX_PAYLOAD_BYTES, MAX_ROW_BYTES, FormatError, Split
from pipelines.formats.charset import UTF_16_BOMS, FromUtf16
from pipelines.formats.dialect import Dialect
from pipelines.formats.unpacking import Beginning, Unpacked
from pipelines.rows.origin import RejectedRow

BOM = b"\xef\xbb\xbf"
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}


_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def compression_of(path: str) -> str | None:
    """Returns the compression that a file's name stands for, in pyarrow's words.

    >>> compression_of("x.csv.gz"), compression_of("x.csv.gz-00000-of-00012"), compression_of("x.csv")
    ('gzip', 'gzip', None)
    """
    return COMPRESSIONS.get(os.path.splitext(without_shard(path))[1].lower())


def without_shard(path: str) -> str:
    """Returns a name without the number of a shard that ends it, as Beam names files: `x.csv-00000-of-00012`."""
    return _SHARD.sub("", path)


def open_text(path: str, size: int | None = None, encoding: str | None = None) -> IO[bytes]:
    """Opens a file, decompressed by its extension, UTF-16 as UTF-8.

    Args:
      path: of the file.
      size: of a file that is compressed, or UTF-16, only so many of its bytes are read.
      encoding: of the text; UTF-8 by default.
    """
    raw = storage.open_input(path)
    compression = compression_of(path)
    if compression is None and not is_utf16(encoding):
        return raw
    opened = cast(IO[bytes], raw if size is None else Beginning(raw, size))
    if compression is not None:
        opened = cast(IO[bytes], Unpacked(opened, compression))
    return cast(IO[bytes], FromUtf16(opened, str(encoding))) if is_utf16(encoding) else opened


def is_whole(path: str, options: Mapping[str, Any]) -> bool:
    """Tells whether a file can only be read from its beginning: compressed ones, and UTF-16."""
    return compression_of(path) is not None or is_utf16(options.get("encoding"))


def starts_as_utf16(path: str) -> bool:
    """Tells whether a file that is not compressed begins with the BOM of UTF-16."""
    return compression_of(path) is None and storage.read_range(path, 0, 2) in UTF_16_BOMS


def line_cuts(file: str, size: int, split_bytes: int) -> list[int]:
    """Offsets that cut a file of lines into pieces of about `split_bytes`: its beginning, line ends, its end."""
    cuts = [0]
    if size > split_bytes:
        with storage.open_input(file) as handle:
            for wanted in range(split_bytes, size, split_bytes):
                if wanted > cuts[-1] and (boundary := _next_line(handle, wanted)) < size:
                    cuts.append(boundary)
    return [*cuts, size] if size else []


def _next_line(file: IO[bytes], wanted: int) -> int:
    """Offset of the first line that begins at or after `wanted`, or the end of the file."""
    file.seek(wanted - 1)
    at = wanted - 1
    while piece := storage.read_fully(file, 1 << 16):
        found = piece.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(piece)
    return at


def row_blocks(
    split: Split, dialect: Dialect, key_of: Callable[[bytes], str | None], encoding: str | None = None
) -> Iterator[tuple[int, bytes | RejectedRow]]:
    """Yields whole rows, about BLOCK_BYTES at a time.

    Args:
      split: what to read.
      dialect: how rows are told apart.
      key_of: gives the key of a row that is too long, from its beginning.
      encoding: of the text; UTF-8 by default. Only UTF-16 makes a difference.
    """
    offset, carry = split.start, b""
    long_row: _LongRow | None = None
    try:
        for chunk in _chunks(split, encoding):
            data = chunk
            if long_row is not None:
                rest = long_row.add(chunk)
                if not rest:
                    continue
                yield offset, long_row.reject(split.file, offset, key_of)
                offset, long_row, data = offset + long_row.length, None, chunk[rest:]
            elif carry:
                data = carry + chunk
            cut, carry = dialect.last_row_end(data), b""
            if cut:
                for low, high in _pieces(data, cut, dialect):
                    yield offset + low, data[low:high]
                offset, carry = offset + cut, data[cut:]
            elif len(data) > MAX_ROW_BYTES:
                # No line end so far: only the next one is looked for.
                long_row = _LongRow()
                if rest := long_row.add(data):
                    yield offset, long_row.reject(split.file, offset, key_of)
                    offset, long_row, carry = offset + rest, None, data[rest:]
            else:
                carry = data
    except _BrokenStreamError as error:
        if long_row is not None:
            yield offset, long_row.reject(split.file, offset, key_of)
            offset += long_row.length
        if carry and error.garbage:
            # The data before it is whole, and so is its last row.
            yield offset, carry
            offset, carry = offset + len(carry), b""
        yield offset, _unreadable(split.file, offset, carry, error)
        return
    if long_row is not None:
        yield offset, long_row.reject(split.file, offset, key_of)
    elif carry:
        yield offset, carry


def _pieces(data: bytes, size: int, dialect: Dialect) -> list[tuple[int, int]]:
    """Cuts whole rows, where they are much more than a block, into pieces of about BLOCK_BYTES."""
    if size <= 2 * BLOCK_BYTES:
        return [(0, size)]
    ends = dialect.row_ends(data[:size], final=True)
    cuts = {int(ends[np.searchsorted(ends, wanted)]) for wanted in range(BLOCK_BYTES, size, BLOCK_BYTES)}
    return list(itertools.pairwise(sorted({0, *cuts, size})))


class _BrokenStreamError(Exception):
    """A compressed file ends early, or is not what its name says. `garbage` begins what is behind its whole data."""

    def __init__(self, message: str, garbage: bytes) -> None:
        super().__init__(message)
        self.garbage = garbage


def _chunks(split: Split, encoding: str | None) -> Iterator[bytes]:
    """The (decompressed) bytes of a split, BLOCK_BYTES at a time. Raises _BrokenStreamError."""
    if not is_whole(split.file, {"encoding": encoding}):
        with storage.open_input(split.file, split.start) as file:
            left = split.end - split.start
            while left > 0 and (chunk := storage.read_fully(file, min(BLOCK_BYTES, left))):
                left -= len(chunk)
                yield chunk
        return
    with open_text(split.file, split.end, encoding) as file:
        storage.read_fully(file, split.start)
        while chunk := storage.read_fully(file, BLOCK_BYTES):
            yield chunk
        if isinstance(file, (Unpacked, FromUtf16)) and file.failure:
            raise _BrokenStreamError(file.failure, file.garbage)


class _LongRow:
    """A row that is too long to be decoded, as it is read: its beginning is kept, its end is looked for."""

    def __init__(self) -> None:
        self.length = 0
        self._kept: list[bytes] = []

    def add(self, data: bytes) -> int:
        """Takes what belongs to the row; gives the offset behind its line end in `data`, 0 if it goes on."""
        rest = data.find(b"\n") + 1
        rest = data.find(b"\r", 0, max(rest - 2, 0) if rest else len(data)) + 1 or rest
        mine = data[:rest] if rest else data
        if self.length < MAX_PAYLOAD_BYTES:
            self._kept.append(mine[: MAX_PAYLOAD_BYTES - self.length])
        self.length += len(mine)
        return rest

    def reject(self, name: str, position: int, key_of: Callable[[bytes], str | None]) -> RejectedRow:
        """The row as a dead letter."""
        payload = b"".join(self._kept)
        self._kept = []
        truncated = self.length > len(payload)
        payload = payload if truncated else payload.rstrip(b"\r\n")
        return replace(too_long(name, position, payload, self.length, truncated), key=key_of(payload))


def too_long(name: str, position: int, payload: bytes, length: int, truncated: bool = False) -> RejectedRow:
    """Makes the rejected row of a row that has more bytes than a row may have."""
    message = f"row of {length:,} bytes in {name}; rows may have at most {MAX_ROW_BYTES:,}"
    return RejectedRow(payload, position, message, truncated=truncated)


def _unreadable(name: str, offset: int, carry: bytes, error: _BrokenStreamError) -> RejectedRow:
    how = "read" if compression_of(name) is None else "decompressed"
    message = f"{name} cannot be {how} beyond byte {offset + len(carry):,}: {plain_message(error)}"
    if offset or carry:
        return RejectedRow(carry or error.garbage, offset, message, truncated=True)
    whole = storage.read_range(name, 0, MAX_PAYLOAD_BYTES)
    return RejectedRow(whole, 0, message, truncated=len(whole) == MAX_PAYLOAD_BYTES)


def plain_message(error: Exception) -> str:
    """Returns an error's message on one line, at most 500 characters, without parts that only mislead."""
    text = re.sub(r"Row #\d+: ", "", str(error))
    text = " ".join(text.split())
    return text if len(text) <= 500 else text[:497] + "..."


def first_block(file: str, size: int = 1 << 20, encoding: str | None = None) -> bytes:
    """Returns the first bytes of a (decompressed) file, UTF-16 as UTF-8, for looking at it. Raises FormatError."""
    try:
        with open_text(file, None, encoding) as stream:
            raw = storage.read_fully(stream, size)
    except (OSError, EOFError) as error:
        raise FormatError(f"{file} cannot be read: {plain_message(error)}") from None
    if not raw and isinstance(stream, (Unpacked, FromUtf16)) and stream.failure:
        raise FormatError(f"{file} cannot be read: {stream.failure}")
    return raw
