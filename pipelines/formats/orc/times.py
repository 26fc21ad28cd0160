"""Timestamps of an ORC stripe that pyarrow refuses, as nanoseconds do not hold one of them: read as microseconds.

Streams, run lengths and the nanoseconds' form are those of https://orc.apache.org/specification/ORCv1. Only columns
that are not inside of others are read, written in UTC, and uncompressed or compressed with zlib, zstd or snappy.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.proto_subset import build_messages
from pipelines.formats.base import FormatError
from pipelines.formats.parquet.times import FineTimes

TIMESTAMP_KINDS = (9, 18)
"""Numbers of the types TIMESTAMP and TIMESTAMP_INSTANT."""

_EPOCH = 1_420_070_400
"""2015-01-01 in seconds since 1970-01-01."""

_PRESENT, _DATA, _SECONDARY = 0, 1, 5
_UTC = ("", "GMT", "UTC", "Etc/UTC", "Etc/GMT")
_CHUNK_BYTES = 8 << 20
_WIDTHS = (*range(1, 25), 26, 28, 30, 32, 40, 48, 56, 64)
Integers = npt.NDArray[np.int64]

_StripeFooter = build_messages(
    "pipelines.orc_times",
    {
        "Stream": [("kind", 1, "int64"), ("column", 2, "int64"), ("length", 3, "int64")],
        "ColumnEncoding": [("kind", 1, "int64")],
        "StripeFooter": [
            ("streams", 1, "repeated Stream"),
            ("columns", 2, "repeated ColumnEncoding"),
            ("writerTimezone", 3, "string"),
        ],
    },
)["StripeFooter"]


class StripeTimes:
    """Reads the timestamps of one stripe.

    Args:
      read: gives bytes of the file: from an offset, so many.
      compression: of the file, as pyarrow names it.
      stripe: StripeInformation of the footer.
    """

    def __init__(self, read: Callable[[int, int], bytes], compression: str, stripe: Any) -> None:
        self._read, self._compression = read, compression
        self._start, self._rows = int(stripe.offset), int(stripe.numberOfRows)
        end = self._start + stripe.indexLength + stripe.dataLength
        self._footer = _StripeFooter.FromString(self._unpacked(read(end, stripe.footerLength)))
        if self._footer.writerTimezone not in _UTC:
            raise FormatError(f"its times are those of {self._footer.writerTimezone}")

    def column(self, number: int, zone: str | None) -> tuple[pa.Array, pa.Array]:
        """Returns a column, by its number in the tree of types: as microseconds, and as nanoseconds that may have
        wrapped.
        """
        present = np.ones(self._rows, np.bool_)
        if stream := self._stream(number, _PRESENT):
            flags = np.unpackbits(np.frombuffer(_bytes(stream, -(-self._rows // 8)), np.uint8))
            present = flags[: self._rows].astype(np.bool_)
        count = int(present.sum())
        old = self._footer.columns[number].kind == 0
        decode = _old_integers if old else _integers
        seconds = decode(self._stream(number, _DATA), count, signed=True) + _EPOCH
        packed = decode(self._stream(number, _SECONDARY), count, signed=False)
        zeros = packed & 7
        nanos = (packed >> 3) * 10 ** np.where(zeros > 0, zeros + 1, 0)
        # Writers round seconds before 1970 towards zero.
        seconds = seconds - ((seconds < 0) & (nanos > 999_999))
        return (
            _column(seconds * 1_000_000 + nanos // 1000, present, pa.timestamp("us", zone)),
            _column(seconds * 1_000_000_000 + nanos, present, pa.timestamp("ns", zone)),
        )

    def _stream(self, number: int, kind: int) -> bytes:
        at = self._start
        for stream in self._footer.streams:
            if stream.column == number and stream.kind == kind:
                return self._unpacked(self._read(at, stream.length))
            at += stream.length
        return b""

    def _unpacked(self, raw: bytes) -> bytes:
        if self._compression == "UNCOMPRESSED":
            return raw
        parts, at = [], 0
        while at + 3 <= len(raw):
            header = int.from_bytes(raw[at : at + 3], "little")
            chunk = raw[at + 3 : at + 3 + (header >> 1)]
            parts.append(chunk if header & 1 else _decompressed(chunk, self._compression))
            at += 3 + (header >> 1)
        return b"".join(parts)


def with_times(rest: pa.RecordBatch | None, times: dict[str, tuple[pa.Array, pa.Array]]) -> list[pa.RecordBatch]:
    """Times beside the other columns, if there are some, in units that hold them.

    Raises FormatError for a time that no unit holds.
    """
    columns = {} if rest is None else dict(zip(rest.schema.names, rest.columns, strict=True))
    micro = pa.record_batch({**columns, **{name: coarse for name, (coarse, _) in times.items()}})
    fine = pa.record_batch({name: nano for name, (_, nano) in times.items()})
    return list(FineTimes(iter([fine])).beside(micro))


def _column(values: Integers, present: npt.NDArray[np.bool_], type: pa.DataType) -> pa.Array:
    found = np.zeros(len(present), np.int64)
    found[present] = values
    return pa.array(found, mask=~present).cast(type)


def _decompressed(chunk: bytes, compression: str) -> bytes:
    if compression == "ZLIB":
        return zlib.decompressobj(-15).decompress(chunk, _CHUNK_BYTES)
    if compression == "ZSTD":
        return bytes(pa.CompressedInputStream(pa.BufferReader(chunk), "zstd").read(_CHUNK_BYTES))
    if compression == "SNAPPY":
        size, _ = _varint(chunk, 0)
        return bytes(pa.Codec("snappy").decompress(chunk, min(size, _CHUNK_BYTES), asbytes=True))
    raise FormatError(f"its times are compressed with {compression}")


def _bytes(data: bytes, count: int) -> bytes:
    """Bytes in run lengths."""
    out, at = bytearray(), 0
    while len(out) < count:
        control = data[at]
        if control < 128:
            out += data[at + 1 : at + 2] * (control + 3)
            at += 2
        else:
            out += data[at + 1 : at + 257 - control]
            at += 257 - control
    return bytes(out[:count])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def _zigzag(values: npt.NDArray[np.uint64]) -> Integers:
    return (values >> np.uint64(1)).astype(np.int64) ^ -(values & np.uint64(1)).astype(np.int64)


def _unzigzag(value: int) -> int:
    return value >> 1 ^ -(value & 1)


def _old_integers(data: bytes, count: int, *, signed: bool) -> Integers:
    """Integers in run lengths of version 1."""
    out: list[int] = []
    at = 0
    while len(out) < count:
        control, at = data[at], at + 1
        if control < 128:
            step = int.from_bytes(data[at : at + 1], "little", signed=True)
            base, at = _varint(data, at + 1)
            base = _unzigzag(base) if signed else base
            out += [base + step * index for index in range(control + 3)]
        else:
            for _ in range(256 - control):
                value, at = _varint(data, at)
                out.append(_unzigzag(value) if signed else value)
    return np.array(out[:count], np.int64)


def _integers(data: bytes, count: int, *, signed: bool) -> Integers:
    """Integers in run lengths of version 2."""
    parts: list[Integers] = []
    have = at = 0
    while have < count:
        found, at = _RUNS[data[at] >> 6](data, at, signed)
        parts.append(found)
        have += len(found)
    return np.concatenate(parts)[:count] if parts else np.zeros(0, np.int64)


def _unpack(data: bytes, at: int, width: int, count: int) -> tuple[npt.NDArray[np.uint64], int]:
    """Integers of so many bits each, the highest bit first."""
    size = -(-width * count // 8)
    bits = np.unpackbits(np.frombuffer(data[at : at + size], np.uint8))[: width * count].reshape(count, width)
    wide = np.zeros((count, 64), np.uint8)
    wide[:, 64 - width :] = bits
    return np.packbits(wide, axis=1).view(">u8").reshape(count).astype(np.uint64), at + size


def _short_repeat(data: bytes, at: int, signed: bool) -> tuple[Integers, int]:
    width, times = (data[at] >> 3 & 7) + 1, (data[at] & 7) + 3
    value = int.from_bytes(data[at + 1 : at + 1 + width], "big")
    return np.full(times, _unzigzag(value) if signed else value, np.int64), at + 1 + width


def _direct(data: bytes, at: int, signed: bool) -> tuple[Integers, int]:
    width, count = _WIDTHS[data[at] >> 1 & 31], ((data[at] & 1) << 8 | data[at + 1]) + 1
    values, at = _unpack(data, at + 2, width, count)
    return _zigzag(values) if signed else values.astype(np.int64), at


def _patched(data: bytes, at: int, signed: bool) -> tuple[Integers, int]:
    width, count = _WIDTHS[data[at] >> 1 & 31], ((data[at] & 1) << 8 | data[at + 1]) + 1
    base_bytes, patch_width = (data[at + 2] >> 5) + 1, _WIDTHS[data[at + 2] & 31]
    gap_width, patches = (data[at + 3] >> 5) + 1, data[at + 3] & 31
    base = int.from_bytes(data[at + 4 : at + 4 + base_bytes], "big")
    sign = 1 << (8 * base_bytes - 1)
    base = -(base & sign - 1) if base & sign else base
    values, at = _unpack(data, at + 4 + base_bytes, width, count)
    found = values.astype(np.int64)
    entry = next(size for size in _WIDTHS if size >= patch_width + gap_width)
    listed, at = _unpack(data, at, entry, patches)
    place = 0
    for each in listed.tolist():
        place += each >> patch_width
        found[place] |= (each & (1 << patch_width) - 1) << width
    return found + base, at


def _delta(data: bytes, at: int, signed: bool) -> tuple[Integers, int]:
    code, count = data[at] >> 1 & 31, ((data[at] & 1) << 8 | data[at + 1]) + 1
    base, at = _varint(data, at + 2)
    step, at = _varint(data, at)
    base, step = _unzigzag(base) if signed else base, _unzigzag(step)
    if not code:
        return base + step * np.arange(count, dtype=np.int64), at
    deltas, at = _unpack(data, at, _WIDTHS[code], count - 2)
    steps = np.concatenate([[0, step], deltas.astype(np.int64) * (-1 if step < 0 else 1)]).astype(np.int64)
    return base + np.cumsum(steps), at


_RUNS = (_short_repeat, _direct, _patched, _delta)
