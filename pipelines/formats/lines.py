"""Reads plain text: one line is one row, an empty one too; its column is `line`.

A line ends with a newline, a carriage return, or both; what is behind the last line end is a line if there is any. A
line that is not UTF-8 is a dead letter, a BOM at the beginning is none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.encodings import charset_of
from pipelines.formats.base import MAX_BLOCK_ROWS, MAX_ROW_BYTES, FormatError, ReadSpec, Split
from pipelines.formats.charset import UTF_16_BOMS, to_utf8
from pipelines.formats.content import CONTENT
from pipelines.formats.dialect import Dialect
from pipelines.formats.quoting import line_count
from pipelines.formats.table import broken_file
from pipelines.formats.text import TextReader, blocks_of
from pipelines.formats.text_blocks import BOM, first_block, is_whole, line_cuts, starts_as_utf16, too_long
from pipelines.formats.text_origin import TextOrigin
from pipelines.rows.origin import Block, RejectedRow

Bools = npt.NDArray[np.bool_]

_COLUMN = CONTENT["text"]
_SAMPLE_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20
"""Of a block of very many lines, that are decoded at a time."""

IS_UTF_16 = 'is UTF-16: set source.encoding to "utf-16"'


class LineReader(TextReader):
    """Reads plain text. Options: `encoding`."""

    dialect = Dialect(keeps_empty=True)

    def __init__(self, spec: ReadSpec) -> None:
        super().__init__(spec)
        self._charset = charset_of(spec.options.get("encoding"))

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        raw = first_block(file, 2, options.get("encoding"))
        if raw in UTF_16_BOMS:
            raise FormatError(f"{file}: {IS_UTF_16}")
        return pa.schema([(_COLUMN, pa.string())] if raw else [])

    @classmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        schema = pa.schema([(_COLUMN, pa.string())])
        raw = first_block(file, _SAMPLE_BYTES, options.get("encoding")).removeprefix(BOM)
        ends = cls.dialect.row_ends(raw, final=len(raw) < _SAMPLE_BYTES)[:rows]
        for piece in cls(ReadSpec(schema, options)).decode(file, 0, raw[: int(ends[-1]) if len(ends) else 0], None):
            if isinstance(piece, Block):
                return piece.batch
        return pa.RecordBatch.from_pylist([], schema=schema)

    def splits(self, file: str, size: int, split_bytes: int) -> list[Split]:
        if is_whole(file, self.spec.options) or starts_as_utf16(file):
            return [Split(file, 0, size, size)] if size else []
        cuts = line_cuts(file, size, split_bytes)
        return [Split(file, a, b, b - a) for a, b in zip(cuts, cuts[1:], strict=False)]

    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        if split.start == 0:
            if not is_whole(split.file, self.spec.options) and starts_as_utf16(split.file):
                yield broken_file(split.file, None, split.nbytes, IS_UTF_16)
                return
            # One that does not unpack says so when it is read on.
            with suppress(FormatError):
                if first_block(split.file, len(BOM), self.spec.options.get("encoding")) == BOM:
                    split = replace(split, start=len(BOM))
        yield from super().read(split)

    def format_of(self, context: Any) -> dict[str, Any]:
        return {"type": "text"}

    def replay(self, payload: bytes, context: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        # An empty line is a row too.
        return self.decode(name, 0, payload or b"\n", None)

    def key_of(self, raw: bytes, context: Any) -> str | None:
        return None

    def columns(self, raw: bytes, context: Any) -> pa.RecordBatch:
        return self._batch(self._values(raw).cast(pa.string()))

    def decode(self, name: str, offset: int, raw: bytes, context: Any) -> Iterator[Block | RejectedRow]:
        # Each line takes memory of its own.
        pieces = _pieces(raw) if line_count(raw) > MAX_BLOCK_ROWS else [(0, len(raw))]
        for low, high in pieces:
            yield from self._decode(name, offset + low, raw[low:high])

    def _decode(self, name: str, offset: int, raw: bytes) -> Iterator[Block | RejectedRow]:
        spans = self.dialect.spans(raw)
        origin = TextOrigin(name, offset, raw, self.dialect, self.format_of(None))
        good = spans.ends - spans.starts <= MAX_ROW_BYTES
        for row in np.flatnonzero(~good).tolist():
            start, end = int(spans.starts[row]), int(spans.ends[row])
            yield too_long(name, offset + start, raw[start:end], end - start)
        values = self._values(raw)
        try:
            texts = values.cast(pa.string())
        except pa.ArrowInvalid:
            bad = _not_utf8(values) & good
            positions = origin.positions()
            for row in np.flatnonzero(bad).tolist():
                yield RejectedRow(origin.payload(row), int(positions[row]), self._refusal)
            good &= ~bad
            texts = pc.cast(values, options=pc.CastOptions(pa.string(), allow_invalid_utf8=True))
        if not good.all():
            kept = np.flatnonzero(good)
            origin, texts = origin.only(kept), texts.take(pa.array(kept))
        if len(texts):
            yield from blocks_of(origin, self._batch(texts))

    @property
    def _refusal(self) -> str:
        if self.spec.options.get("encoding"):
            return f"the line is not {self.spec.options['encoding']}"
        return 'the line is not UTF-8; if the file is in another encoding, set source.encoding ("cp1252")'

    def _batch(self, texts: pa.Array) -> pa.RecordBatch:
        """The columns wanted: of the lines, there is one."""
        columns = [
            texts if field.name == _COLUMN else pa.nulls(len(texts), field.type) for field in self.spec.columns
        ] or [texts]
        batch = pa.RecordBatch.from_arrays(columns, self.spec.columns.names or [_COLUMN])
        return batch.select(self.spec.columns.names)

    def _values(self, raw: bytes) -> pa.Array:
        """The lines of a block as bytes of UTF-8, without their line ends; what is in another encoding is none."""
        try:
            return _lines(to_utf8(raw, self._charset), self.dialect)
        except UnicodeDecodeError:
            found = _lines(raw, self.dialect).to_pylist()
            return pa.array([_utf8_or_none(line, self._charset) for line in found], pa.large_binary())


def _lines(raw: bytes, dialect: Dialect) -> pa.Array:
    """The lines of a block, large_binary: its bytes without line ends, and where each begins."""
    spans = dialect.spans(raw)
    offsets = np.zeros(len(spans) + 1, np.int64)
    np.cumsum(spans.ends - spans.starts, out=offsets[1:])
    following = np.append(spans.starts[1:], len(raw))
    kept = np.ones(len(raw), bool)
    for width in (1, 2):
        kept[following[following - spans.ends >= width] - width] = False
    data = np.frombuffer(raw, np.uint8)[kept]
    return pa.Array.from_buffers(pa.large_binary(), len(spans), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _pieces(raw: bytes) -> Iterator[tuple[int, int]]:
    """Cuts a block of very many lines."""
    low = 0
    while low < len(raw):
        high = raw.find(b"\n", low + _PIECE_BYTES) + 1 or len(raw)
        yield low, high
        low = high


def _not_utf8(lines: pa.Array) -> Bools:
    """Which lines are not UTF-8, bool [lines]."""
    texts = pc.cast(lines, options=pc.CastOptions(pa.large_string(), allow_invalid_utf8=True))
    found: Bools = ~pc.string_is_ascii(texts).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(found).tolist():
        try:
            lines[row].as_py().decode()
        except UnicodeDecodeError:
            continue
        found[row] = False
    return found


def _utf8_or_none(line: bytes, charset: str | None) -> bytes:
    """A line as UTF-8; bytes that are none if it is not of the encoding."""
    try:
        return to_utf8(line, charset)
    except UnicodeDecodeError:
        return b"\xff"
