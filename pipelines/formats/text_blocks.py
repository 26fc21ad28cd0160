"""Text files as blocks of whole rows, unpacked where they are compressed.

Whatever a file holds, a block has at most MAX_ROW_BYTES + BLOCK_BYTES, and each byte is looked at a bounded number of
times: of a row that is longer, only the next line end is looked for.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, cast

import numpy as np

from pipelines import files
from pipelines.formats.base import BLOCK_BYTES, MAX_PAYLOAD_BYTES, MAX_ROW_BYTES, FormatError, Split
from pipelines.formats.dialect import Dialect
from pipelines.formats.unpacking import Beginning, Unpacked
from pipelines.rows import RejectedRow

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd"}


def compression_of(path: str) -> str | None:
    """The compression that a file's name stands for, in pyarrow's words."""
    return COMPRESSIONS.get(os.path.splitext(path)[1].lower())


def open_text(path: str, size: int | None = None) -> IO[bytes]:
    """Opens a file, decompressed by its extension; of a compressed one only the first `size` bytes, if given."""
    raw = files.open_input(path)
    compression = compression_of(path)
    if compression is None:
        return raw
    limited = raw if size is None else Beginning(raw, size)
    return cast(IO[bytes], Unpacked(cast(IO[bytes], limited), compression))


def row_blocks(
    split: Split, dialect: Dialect, key_of: Callable[[bytes], str | None]
) -> Iterator[tuple[int, bytes | RejectedRow]]:
    """Whole rows, about BLOCK_BYTES at a time.

    Args:
      split: what to read.
      dialect: how rows are told apart.
      key_of: gives the key of a row that is too long, from its beginning.
    """
    offset, carry = split.start, b""
    long_row: _LongRow | None = None
    try:
        for chunk in _chunks(split):
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


def _chunks(split: Split) -> Iterator[bytes]:
    """The (decompressed) bytes of a split, BLOCK_BYTES at a time. Raises _BrokenStreamError."""
    if compression_of(split.file) is None:
        with files.open_input(split.file, split.start) as file:
            left = split.end - split.start
            while left > 0 and (chunk := files.read_fully(file, min(BLOCK_BYTES, left))):
                left -= len(chunk)
                yield chunk
        return
    with open_text(split.file, split.end) as file:
        files.read_fully(file, split.start)
        while chunk := files.read_fully(file, BLOCK_BYTES):
            yield chunk
        if isinstance(file, Unpacked) and file.failure:
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
    message = f"row of {length:,} bytes in {name}; rows may have at most {MAX_ROW_BYTES:,}"
    return RejectedRow(payload, position, message, truncated=truncated)


def _unreadable(name: str, offset: int, carry: bytes, error: _BrokenStreamError) -> RejectedRow:
    message = f"{name} cannot be decompressed beyond byte {offset + len(carry):,}: {plain_message(error)}"
    if offset or carry:
        return RejectedRow(carry or error.garbage, offset, message, truncated=True)
    whole = files.read_range(name, 0, MAX_PAYLOAD_BYTES)
    return RejectedRow(whole, 0, message, truncated=len(whole) == MAX_PAYLOAD_BYTES)


def plain_message(error: Exception) -> str:
    """An error's message on one line, at most 500 characters, without parts that only mislead."""
    text = re.sub(r"Row #\d+: ", "", str(error))
    text = " ".join(text.split())
    return text if len(text) <= 500 else text[:497] + "..."


def first_block(file: str, size: int = 1 << 20) -> bytes:
    """The first bytes of a (decompressed) file, for looking at it. Raises FormatError."""
    try:
        with open_text(file) as stream:
            raw = files.read_fully(stream, size)
    except (OSError, EOFError) as error:
        raise FormatError(f"{file} cannot be read: {plain_message(error)}") from None
    if not raw and isinstance(stream, Unpacked) and stream.failure:
        raise FormatError(f"{file} cannot be read: {stream.failure}")
    return raw
