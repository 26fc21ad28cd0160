"""Reads and writes TFRecord's frames: `length u64, masked CRC of it u32, data, masked CRC of data u32`.

Format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details. Checksums are
CRC-32C; those of the lengths are computed for many records at a time.
"""

from __future__ import annotations

import functools
import struct

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES

_MASK_DELTA = 0xA282EAD8
_LENGTH = struct.Struct("<Q")
_checksum = google_crc32c.value

Checksums = npt.NDArray[np.uint32]
Offsets = npt.NDArray[np.int64]


def walk(data: bytes) -> list[int]:
    """Offsets of the frames that are complete in `data`, and the offset after the last one.

    Lengths are believed as long as they stay within `data`: check them with `first_bad_length`.
    """
    offsets, at, last = [0], 0, len(data) - FRAME_BYTES
    read, keep = _LENGTH.unpack_from, offsets.append
    while at <= last:
        at += read(data, at)[0] + FRAME_BYTES
        if at > last + FRAME_BYTES:
            break
        keep(at)
    return offsets


def first_bad_length(data: bytes, offsets: Offsets) -> int:
    """Finds the number of the first frame whose length has a wrong checksum; the number of frames if there is none."""
    heads = np.frombuffer(data, np.uint8)[offsets[:-1, None] + np.arange(HEADER_BYTES)]
    stored = np.ascontiguousarray(heads[:, 8:]).view("<u4").ravel()
    wrong = np.flatnonzero(stored != mask(length_checksums(heads[:, :8])))
    return int(wrong[0]) if len(wrong) else len(heads)


def next_length(data: bytes, at: int) -> int | None:
    """Reads the length of the record whose frame begins at `at`; None if its checksum is wrong."""
    head = np.frombuffer(data, np.uint8, HEADER_BYTES, at)
    if head[8:].view("<u4")[0] != mask(length_checksums(head[None, :8]))[0]:
        return None
    return int(_LENGTH.unpack_from(data, at)[0])


def records(data: bytes, offsets: Offsets) -> tuple[list[bytes], npt.NDArray[np.bool_]]:
    """Returns the records in frames, and whether the data of each has the checksum that its frame says."""
    bounds = offsets.tolist()
    found = [data[a + HEADER_BYTES : b - FOOTER_BYTES] for a, b in zip(bounds, bounds[1:], strict=False)]
    foot = np.frombuffer(data, np.uint8)[offsets[1:, None] - FOOTER_BYTES + np.arange(FOOTER_BYTES)]
    stored = np.ascontiguousarray(foot).view("<u4").ravel()
    computed = np.fromiter(map(_checksum, found), np.uint32, len(found))
    return found, stored == mask(computed)


def frame(data: pa.LargeBinaryArray) -> pa.Buffer:
    """Records as the bytes of a TFRecord file."""
    rows = len(data)
    lengths = pc.binary_length(data).to_numpy().astype("<u8").view(np.uint8).reshape(rows, 8)
    checks = mask(length_checksums(lengths)).astype("<u4").view(np.uint8).reshape(rows, 4)
    heads = np.ascontiguousarray(np.hstack([lengths, checks]))
    foots = mask(np.fromiter(map(_checksum, data.to_pylist()), np.uint32, rows)).astype("<u4")
    framed = pc.binary_join_element_wise(
        _fixed(heads, HEADER_BYTES), data, _fixed(foots, FOOTER_BYTES), pa.scalar(b"", pa.large_binary())
    )
    return pa.py_buffer(b"") if not rows else framed.buffers()[2]


def mask(checksums: Checksums) -> Checksums:
    """TFRecord's masked CRC."""
    rotated = (checksums >> np.uint32(15)) | (checksums << np.uint32(17))
    masked: Checksums = rotated + np.uint32(_MASK_DELTA)
    return masked


def length_checksums(lengths: npt.NDArray[np.uint8]) -> Checksums:
    """Computes the CRC-32C of rows of eight bytes."""
    tables, zero = _tables()
    out = np.full(len(lengths), zero, np.uint32)
    for place in range(8):
        out ^= tables[place][lengths[:, place]]
    return out


@functools.cache
def _tables() -> tuple[Checksums, int]:
    # A CRC is linear: that of eight bytes is the XOR of what each byte alone adds to that of eight zeros.
    zero = _checksum(bytes(8))
    alone = [
        [_checksum(bytes(place) + bytes([byte]) + bytes(7 - place)) ^ zero for byte in range(256)] for place in range(8)
    ]
    return np.array(alone, np.uint32), zero


def _fixed(values: npt.NDArray[np.generic], width: int) -> pa.LargeBinaryArray:
    rows = values.nbytes // width
    return pa.Array.from_buffers(pa.binary(width), rows, [None, pa.py_buffer(values)]).cast(pa.large_binary())
