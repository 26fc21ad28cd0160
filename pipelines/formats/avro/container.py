"""Reads the frame of Avro object container files: header, blocks and sync markers; no rows.

Format: https://avro.apache.org/docs/1.11.1/specification/#object-container-files
"""

from __future__ import annotations

import bz2
import json
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

import pyarrow as pa

from pipelines.formats.base import FormatError
from pipelines.formats.limits import MAX_JSON_DEPTH, MAX_SCHEMA_BYTES
from pipelines.storage import read_fully

MAGIC = b"Obj\x01"
SYNC_BYTES = 16
MAX_HEADER_BYTES = 16 << 20
MAX_BLOCK_BYTES = 256 << 20
"""Maximum bytes of a block, packed or unpacked; a larger one is not decoded."""

MAX_BLOCK_ROWS = 1 << 26
"""A block that says it has more rows is taken for corrupt."""

_MAX_METADATA = 1000
_WINDOW = 1 << 20
_FIRST_WINDOW = 1 << 13
_MAX_VARINT = 10


class CorruptError(ValueError):
    """Raised for bytes that are not what Avro says they should be."""


@dataclass(frozen=True)
class Header:
    """Describes the beginning of a container.

    Attributes:
      schema: the writer's schema, as in the file.
      codec: how blocks are compressed.
      sync: the marker after the header and after each block.
      raw: the header's bytes, sync marker included.
    """

    schema: Any
    codec: str
    sync: bytes
    raw: bytes


@dataclass(frozen=True)
class Piece:
    """Describes a block, or a stretch of the file in which no block can be recognised.

    Attributes:
      start: byte offset of the piece in the file.
      end: byte offset of the next piece.
      rows: rows that the block says it has; 1 if what it says cannot be true.
      data: first byte and byte after the last one of the block's (compressed) rows, as file offsets.
      damage: what is wrong with the framing; empty for a block.
    """

    start: int
    end: int
    rows: int
    data: tuple[int, int]
    damage: str = ""


def varint(value: int) -> bytes:
    """Avro's long: zigzag, base 128, least significant group first."""
    value = (value << 1) ^ (value >> 63)
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns a long of `data` at `at`, and the offset after it. Raises CorruptError."""
    value = shift = 0
    for index in range(at, min(at + _MAX_VARINT, len(data))):
        value |= (data[index] & 0x7F) << shift
        if data[index] < 0x80:
            return (value >> 1) ^ -(value & 1), index + 1
        shift += 7
    raise CorruptError("a number does not end")


def parse_json(text: bytes) -> Any:
    """Returns a schema's JSON. Raises ValueError if it is none, or larger or deeper than schemas are."""
    if len(text) > MAX_SCHEMA_BYTES:
        raise ValueError(f"it has {len(text):,} bytes; a schema may have at most {MAX_SCHEMA_BYTES:,}")
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_JSON_DEPTH} levels") from None
    level = [found]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            part
            for each in level
            if isinstance(each, (dict, list))
            for part in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise ValueError(f"it is nested deeper than {MAX_JSON_DEPTH} levels")
    return found


def read_header(file: IO[bytes], name: str) -> Header:
    """Reads the header of a file that is at its start. Raises FormatError."""
    raw = read_fully(file, 1 << 16)
    while True:
        try:
            return _parse_header(raw)
        except CorruptError as error:
            # The header may only be longer than what was read of it.
            more = read_fully(file, len(raw)) if raw[:4] == MAGIC and len(raw) < MAX_HEADER_BYTES else b""
            if not more:
                raise FormatError(f"{name} is not a readable Avro container: {error}") from None
            raw += more


def header_bytes(schema: Any, codec: str, sync: bytes) -> bytes:
    """Returns the header of a container."""
    text = json.dumps(schema).encode()
    entries = {b"avro.schema": text, b"avro.codec": codec.encode()}
    metadata = b"".join(varint(len(k)) + k + varint(len(v)) + v for k, v in entries.items())
    return MAGIC + varint(len(entries)) + metadata + b"\0" + sync


def block_bytes(rows: int, data: bytes, sync: bytes, before: bytes = b"") -> bytes:
    """Returns a block of a container, with its sync marker, after the bytes that come before it."""
    return b"".join((before, varint(rows), varint(len(data)), data, sync))


def pieces(file: IO[bytes], sync: bytes, start: int, end: int, size: int) -> Iterator[Piece]:
    """Returns the blocks that start between `start` (which is a block's start) and `end`, without their content.

    Where the framing is broken, the stretch up to the next block is one damaged piece.
    """
    while start < end:
        piece = _piece(file, sync, start, size)
        if piece.damage:
            piece = replace(piece, end=find_block(file, sync, start, size))
            piece = replace(piece, data=(piece.start, piece.end))
        yield piece
        start = piece.end


def find_block(file: IO[bytes], sync: bytes, start: int, size: int) -> int:
    """Returns the first offset from `start` on at which a block surely begins, or `size`.

    Surely: after a sync marker, and ended by another one.
    """
    while (start := _after_marker(file, sync, start, size)) < size:
        if not _piece(file, sync, start, size).damage:
            return start
    return size


def decompress(codec: str, data: bytes) -> bytes:
    """Returns the rows of a block. Raises CorruptError; never allocates more than MAX_BLOCK_BYTES."""
    try:
        if codec == "null":
            return data
        if codec == "snappy":
            return _decompress_snappy(data)
        if codec == "zstandard":
            return _decompress_zstandard(data)
        if codec == "deflate":
            stream: Any = zlib.decompressobj(-zlib.MAX_WBITS)
        elif codec == "bzip2":
            stream = bz2.BZ2Decompressor()
        elif codec == "xz":
            stream = lzma.LZMADecompressor(memlimit=MAX_BLOCK_BYTES)
        else:
            raise CorruptError(f"unknown codec {codec!r}")
        out: bytes = stream.decompress(data, MAX_BLOCK_BYTES)
    except (zlib.error, OSError, EOFError, lzma.LZMAError, pa.ArrowException) as error:
        raise CorruptError(f"the block does not decompress ({codec}): {error}") from None
    if not stream.eof:
        raise CorruptError(f"the block ends early, or is larger than {MAX_BLOCK_BYTES} bytes ({codec})")
    return out


def compress(codec: str, data: bytes) -> bytes:
    """Returns the content of a block that holds `data`."""
    if codec == "deflate":
        stream = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        return stream.compress(data) + stream.flush()
    if codec == "snappy":
        packed: bytes = pa.compress(data, "snappy", asbytes=True)
        return packed + zlib.crc32(data).to_bytes(4, "big")
    if codec == "zstandard":
        packed = pa.compress(data, "zstd", asbytes=True)
        return packed
    return bz2.compress(data) if codec == "bzip2" else data


def _decompress_snappy(data: bytes) -> bytes:
    length = shift = 0
    for byte in data[:5]:
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    # Snappy cannot expand 64 bytes from less than 3.
    if length > min(MAX_BLOCK_BYTES, len(data) * 32):
        raise CorruptError(f"the block says that it holds {length} bytes (snappy)")
    out: bytes = pa.decompress(data[:-4], length, "snappy", asbytes=True)
    if zlib.crc32(out).to_bytes(4, "big") != data[-4:]:
        raise CorruptError("the block's checksum is wrong (snappy)")
    return out


def _decompress_zstandard(data: bytes) -> bytes:
    import zstandard

    try:
        # By pieces: the size that a frame declares is not trusted, and may be missing.
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as stream:
            out: bytes = stream.read(MAX_BLOCK_BYTES)
            more = stream.read(1)
    except zstandard.ZstdError as error:
        raise CorruptError(f"the block does not decompress (zstandard): {error}") from None
    if more:
        raise CorruptError(f"the block is larger than {MAX_BLOCK_BYTES} bytes (zstandard)")
    return out


def _parse_header(raw: bytes) -> Header:
    if raw[:4] != MAGIC:
        raise CorruptError('it does not begin with "Obj" and 1')
    metadata: dict[bytes, bytes] = {}
    count, at = read_varint(raw, 4)
    while count:
        if count < 0:
            count, (_, at) = -count, read_varint(raw, at)
        if len(metadata) + count > _MAX_METADATA:
            raise CorruptError(f"the header has more than {_MAX_METADATA:,} entries")
        for _ in range(count):
            key, at = _read_bytes(raw, at)
            metadata[key], at = _read_bytes(raw, at)
        count, at = read_varint(raw, at)
    if at + SYNC_BYTES > len(raw):
        raise CorruptError("the header ends early")
    try:
        schema = parse_json(metadata[b"avro.schema"])
        codec = metadata.get(b"avro.codec", b"null").decode()
    except (KeyError, ValueError) as error:
        raise CorruptError(f"the header has no readable schema: {error!r}") from None
    return Header(schema, codec, raw[at : at + SYNC_BYTES], raw[: at + SYNC_BYTES])


def _read_bytes(raw: bytes, at: int) -> tuple[bytes, int]:
    length, at = read_varint(raw, at)
    if not 0 <= length <= len(raw) - at:
        raise CorruptError("the header ends early")
    return raw[at : at + length], at + length


def _piece(file: IO[bytes], sync: bytes, start: int, size: int) -> Piece:
    file.seek(start)
    head = read_fully(file, 2 * _MAX_VARINT)
    rows = 1
    try:
        declared, at = read_varint(head, 0)
        length, at = read_varint(head, at)
        if not (0 <= declared <= MAX_BLOCK_ROWS and 0 <= length <= size):
            raise CorruptError(f"a block says that it has {declared} rows in {length} bytes")
        # Even of empty records there is hardly a file with a row for less than a thousandth of a byte.
        rows = declared if declared <= 1024 * (length + 1) else 1
        first, last = start + at, start + at + length
        if last + SYNC_BYTES > size:
            raise CorruptError("the file ends within a block")
        file.seek(last)
        if read_fully(file, SYNC_BYTES) != sync:
            raise CorruptError("no sync marker after a block")
    except CorruptError as error:
        return Piece(start, size, max(rows, 1), (start, size), str(error))
    return Piece(start, last + SYNC_BYTES, declared, (first, last))


def _after_marker(file: IO[bytes], sync: bytes, start: int, size: int) -> int:
    """The offset after the first sync marker from `start` on, or `size`."""
    file.seek(start)
    tail, length = b"", _FIRST_WINDOW
    while chunk := read_fully(file, length):
        length = min(2 * length, _WINDOW)
        window = tail + chunk
        if (found := window.find(sync)) >= 0:
            return start - len(tail) + found + SYNC_BYTES
        tail = window[-SYNC_BYTES + 1 :]
        start += len(chunk)
    return size
