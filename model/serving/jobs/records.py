"""Reads files of instances that are TFRecords, and tells where such a file is damaged.

Format: `length u64, masked CRC-32C of it u32, data, masked CRC-32C of the data u32`, little-endian; see
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c

from model.serving.jobs.files import MOST_LINE_BYTES, PIECE_BYTES, InputFiles, InputPiece

_READ = 4 << 20
_HEAD = struct.Struct("<QI")
_FOOT = struct.Struct("<I")


class DamagedRecordsError(Exception):
    """Raised when a file is not made of whole records to its end. The message is one line."""


def record_pieces(files: InputFiles, file: str) -> Iterator[InputPiece]:
    """Cuts a file into pieces of whole records, whose checksums are right.

    Raises:
      DamagedRecordsError: behind the pieces that it gave, the file is not made of records.
    """
    size, at, data = files.size(file), 0, b""
    while at < size:
        start = at - len(data)
        read = files.read(file, at, min(at + _READ, size))
        data, at = data + read, at + len(read)
        ends, problem = _whole_records(data)
        low = 0
        for place, end in enumerate(ends):
            if end - low >= PIECE_BYTES or place == len(ends) - 1:
                yield InputPiece(file, start + low, start + end)
                low = end
        if not problem and not read:
            problem = "it became shorter"
        if not problem and at >= size and low < len(data):
            problem = "it ends within a record"
        if problem:
            raise DamagedRecordsError(f"{file}: {problem} (byte {start + low:,}); nothing from there on was read")
        data = data[low:]


def records_in(piece: bytes) -> list[bytes]:
    """Returns the records of a piece. Raises DamagedRecordsError: it is not made of them any more."""
    ends, problem = _whole_records(piece)
    if problem or (ends[-1] if ends else 0) != len(piece):
        raise DamagedRecordsError(problem or "a record was cut short")
    starts = [0, *ends]
    return [piece[low + _HEAD.size : end - _FOOT.size] for low, end in zip(starts, ends, strict=False)]


def _whole_records(data: bytes) -> tuple[list[int], str]:
    """Returns where the records at the beginning end, and what is wrong behind the last of them, if anything."""
    ends: list[int] = []
    at = 0
    while len(data) - at >= _HEAD.size:
        length, checksum = _HEAD.unpack_from(data, at)
        if checksum != _masked(data[at : at + 8]):
            return ends, "the length of a record has a wrong checksum"
        if length > MOST_LINE_BYTES:
            return ends, f"a record has more than {MOST_LINE_BYTES >> 20} MiB"
        end = at + _HEAD.size + length + _FOOT.size
        if end > len(data):
            break
        if _FOOT.unpack_from(data, end - _FOOT.size)[0] != _masked(data[at + _HEAD.size : end - _FOOT.size]):
            return ends, "a record has a wrong checksum"
        ends.append(end)
        at = end
    return ends, ""


def _masked(data: bytes) -> int:
    checksum: int = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
