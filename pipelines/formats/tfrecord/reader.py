"""Reads TFRecord files of tf.Examples in blocks; tf.Examples are decoded by tfx-bsl.

| a feature | becomes |
|---|---|
| int64, float | int64, float32 (float64 where that is asked for); other types are left to the caller |
| bytes | string where that is asked for and the bytes are UTF-8, else binary |
| one value (or none) in every row, and no list asked for | a plain column |
| absent, or without values | null |

A record whose data has a wrong checksum, or that is not a tf.Example, is rejected alone. After a wrong length
nothing says where the next record begins: the rest of the file is one dead letter.

A local file is cut where walking from length to length says (reading it once, without decoding: 15 times as
fast as reading rows). A remote one would have to be transferred twice, and a compressed one to be unpacked
twice: they are read in one piece.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa

from pipelines.formats.base import (
    BLOCK_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_ROW_BYTES,
    FormatError,
    Reader,
    ReadSpec,
    Split,
)
from pipelines.formats.table import BATCH_BYTES, BATCH_ROWS
from pipelines.formats.tfrecord import frames
from pipelines.formats.tfrecord.examples import SAMPLED_RECORDS, ExampleDecoder, infer
from pipelines.formats.unpacking import Beginning, Unpacked
from pipelines.rows.origin import Block, RejectedRow
from pipelines.storage import is_remote, open_input, read_fully

_GZIP = b"\x1f\x8b\x08"
_HEAD_BYTES = 1 << 20


class TFRecordReader(Reader):
    """Reads tf.Examples from TFRecord files, plain or gzip.

    Options: `record_column`, the name of a column (among the columns wanted) that holds the whole serialized
    record, for models that parse tf.Examples themselves. If it is the only one, nothing is decoded.
    """

    def may_grow(self, file: str, size: int) -> bool:
        return True

    libraries: tuple[str, ...] = ("tfx_bsl.coders.example_coder", "tensorflow_metadata.proto.v0.schema_pb2")

    def __init__(self, spec: ReadSpec) -> None:
        super().__init__(spec)
        self.record_column = spec.options.get("record_column")

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        """Returns columns as the first 200 records have them; a list where one of those has several values."""
        fields = [pa.field(name, type) for name, type in infer(cls._head(file), file).items()]
        if record := options.get("record_column"):
            fields = [field for field in fields if field.name != record]
            fields.append(pa.field(str(record), pa.binary()))
        return pa.schema(fields)

    @classmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        schema = cls.schema(file, options)
        if found := cls._head(file)[:rows]:
            reader = cls(ReadSpec(schema, options))
            for item in ExampleDecoder(reader.spec, reader.record_column, found).read(
                file, found, np.arange(len(found))
            ):
                if isinstance(item, Block):
                    return item.batch
        return pa.RecordBatch.from_pylist([], schema=schema)

    def splits(self, file: str, size: int, split_bytes: int) -> list[Split]:
        if not size:
            return []
        cuts = [0]
        if size > split_bytes and not is_remote(file):
            with open_input(file) as opened:
                if not _is_gzip(file, opened):
                    cuts = list(_cuts(opened, size, split_bytes))
        return [Split(file, a, b, b - a) for a, b in zip(cuts, [*cuts[1:], size], strict=True)]

    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        with open_input(split.file) as opened:
            if _is_gzip(split.file, opened):
                stream: _Stream = _GzipStream(opened, split.end)
            else:
                opened.seek(split.start)
                stream = _Stream(opened, split.end - split.start)
            yield from self._read(split.file, stream, split.start)

    def replay(self, payload: bytes, context: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        if _is_framed(payload):
            return self._read(name, _Stream(io.BytesIO(payload), len(payload)), 0)
        decoder = ExampleDecoder(self.spec, self.record_column, [payload])
        return decoder.read(name, [payload], np.zeros(1, np.int64))

    @classmethod
    def _head(cls, file: str) -> list[bytes]:
        """The first records of a file. Raises FormatError."""
        with open_input(file) as opened:
            packed = _is_gzip(file, opened)
            stream = _GzipStream(opened, 1 << 63) if packed else _Stream(opened, MAX_ROW_BYTES)
            data = b""
            while len(data) < MAX_ROW_BYTES and (more := stream.read(_HEAD_BYTES)):
                data += more
                if len(data) < frames.FRAME_BYTES or frames.next_length(data, 0) is None:
                    break
                if len(offsets := np.array(frames.walk(data))) > 1:
                    offsets = offsets[: min(frames.first_bad_length(data, offsets), SAMPLED_RECORDS) + 1]
                    found, good = frames.records(data, offsets)
                    return [record for record, fine in zip(found, good, strict=True) if fine]
        if data:
            raise FormatError(f"{file} is not a TFRecord file: its first record has no valid frame")
        return []

    def _read(self, name: str, stream: _Stream, start: int) -> Iterator[Block | RejectedRow]:
        decoder: ExampleDecoder | None = None
        data = stream.read(BLOCK_BYTES)
        while data:
            offsets = np.array(frames.walk(data), np.int64)
            count = frames.first_bad_length(data, offsets)
            broken = "the length of a record has a wrong checksum" if count < len(offsets) - 1 else ""
            offsets = offsets[: count + 1]
            if count:
                found, good = frames.records(data, offsets)
                decoder = decoder or ExampleDecoder(self.spec, self.record_column, found)
                for index in np.flatnonzero(~good).tolist():
                    framed = data[offsets[index] : offsets[index + 1]]
                    message = f"{name}: a record's data has a wrong checksum"
                    yield RejectedRow(framed, start + int(offsets[index]), message)
                kept = np.flatnonzero(good)
                # Even an empty record has a value in each column.
                step = max(1, min(BATCH_ROWS, BATCH_BYTES // (8 * len(self.spec.columns) + 1)))
                for low in range(0, len(kept), step):
                    part = kept[low : low + step]
                    chosen = found[low : low + len(part)] if len(kept) == count else [found[i] for i in part]
                    yield from decoder.read(name, chosen, offsets[:-1][part] + start)
            done = int(offsets[-1])
            start, data = start + done, data[done:]
            if not broken and len(data) >= frames.HEADER_BYTES:
                length = frames.next_length(data, 0)
                if length is None:
                    broken = "the length of a record has a wrong checksum"
                elif length > MAX_ROW_BYTES:
                    rejected, passed, data = _skip(stream, data, length, start, name)
                    yield rejected
                    start += passed
                    continue
            if broken:
                yield _rest(stream, data, start, f"{name}: {broken}")
                return
            more = stream.read(BLOCK_BYTES)
            if not more and data:
                yield _rest(stream, data, start, f"{name}: {stream.failure or 'the file ends within a record'}")
                return
            data += more
        if stream.failure:
            yield RejectedRow(b"", start, f"{name}: {stream.failure}", truncated=True)


class _Stream:
    """Bytes of a file up to an end."""

    def __init__(self, file: IO[bytes], nbytes: int) -> None:
        self.file, self.left = file, nbytes

    @property
    def failure(self) -> str:
        """Why there are no more bytes, if that is an error."""
        return ""

    def read(self, count: int) -> bytes:
        data = read_fully(self.file, min(count, self.left))
        self.left -= len(data)
        return data


class _GzipStream(_Stream):
    """The unpacked bytes of the first `nbytes` of a gzip file, of any number of members."""

    def __init__(self, file: IO[bytes], nbytes: int) -> None:
        super().__init__(file, nbytes)
        self._unpacked = Unpacked(cast(IO[bytes], Beginning(file, nbytes)), "gzip")

    @property
    def failure(self) -> str:
        return self._unpacked.failure

    def read(self, count: int) -> bytes:
        return self._unpacked.read(count)


def _is_gzip(file: str, opened: IO[bytes]) -> bool:
    """Whether a file (which is at its start, and stays there) is compressed."""
    head = read_fully(opened, frames.HEADER_BYTES)
    opened.seek(0)
    # A length may begin as gzip does; then its checksum tells.
    return head.startswith(_GZIP) and (len(head) < frames.HEADER_BYTES or frames.next_length(head, 0) is None)


def _is_framed(payload: bytes) -> bool:
    """Whether a payload is a record in its frame (as of a wrong checksum), and not the record alone."""
    if len(payload) < frames.FRAME_BYTES:
        return False
    return frames.next_length(payload, 0) == len(payload) - frames.FRAME_BYTES


def _cuts(file: IO[bytes], size: int, split_bytes: int) -> Iterator[int]:
    """Offsets at which splits begin, found by walking from length to length."""
    yield 0
    at, cut = 0, 0
    while at < size:
        file.seek(at)
        data = read_fully(file, _HEAD_BYTES)
        if len(data) < frames.HEADER_BYTES:
            return
        offsets = frames.walk(data)
        if len(offsets) == 1:
            if (length := frames.next_length(data, 0)) is None:
                return
            offsets.append(length + frames.FRAME_BYTES)
        for offset in offsets[1:]:
            # A wrong length leads astray: splits begin only where a checksum says that a record does.
            if at + offset - cut >= split_bytes and at + offset < size:
                file.seek(at + offset)
                head = read_fully(file, frames.HEADER_BYTES)
                if len(head) < frames.HEADER_BYTES or frames.next_length(head, 0) is None:
                    return
                cut = at + offset
                yield cut
        at += offsets[-1]


def _skip(stream: _Stream, data: bytes, length: int, start: int, name: str) -> tuple[RejectedRow, int, bytes]:
    """Passes a record that is too long: the dead letter, the bytes passed, and what was read after it."""
    total = length + frames.FRAME_BYTES
    kept, passed = io.BytesIO(), 0
    while data:
        part = data[: total - passed]
        kept.write(part[: max(0, MAX_PAYLOAD_BYTES + frames.HEADER_BYTES - kept.tell())])
        passed += len(part)
        data = data[len(part) :]
        if passed == total:
            break
        data = stream.read(BLOCK_BYTES)
    payload = kept.getvalue()[frames.HEADER_BYTES : frames.HEADER_BYTES + min(length, MAX_PAYLOAD_BYTES)]
    message = f"{name}: a record of {length} bytes, more than {MAX_ROW_BYTES}"
    data = data or stream.read(BLOCK_BYTES)
    return RejectedRow(payload, start, message, truncated=len(payload) < length), passed, data


def _rest(stream: _Stream, data: bytes, start: int, message: str) -> RejectedRow:
    """All that is left of a file, as one dead letter."""
    kept = io.BytesIO()
    kept.write(data[:MAX_PAYLOAD_BYTES])
    while kept.tell() < MAX_PAYLOAD_BYTES and (data := stream.read(BLOCK_BYTES)):
        kept.write(data[: MAX_PAYLOAD_BYTES - kept.tell()])
    truncated = bool(stream.failure) or (kept.tell() == MAX_PAYLOAD_BYTES and bool(stream.read(1)))
    message = f"{message}; from byte {start} on, nothing can be read"
    return RejectedRow(kept.getvalue(), start, message, truncated=truncated)
