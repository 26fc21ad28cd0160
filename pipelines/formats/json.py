"""Newline-delimited JSON: one object a line."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from pipelines import files
from pipelines.formats.base import FormatError, Split, Writer
from pipelines.formats.dialect import Dialect
from pipelines.formats.text import TextReader
from pipelines.formats.text_blocks import compression_of, first_block
from pipelines.rows import Positions

_SAMPLE_BYTES = 1 << 20

LINE_ENDS_TO_TABS = bytes.maketrans(b"\r\n", b"\t\t")
"""A tab is white space where a line end is, and no more legal than that within a string."""

_Raw = bytes | memoryview

_LINES_AT_ONCE = 512 << 10

_NULL = rb"[ \t\r\n]*(?:\xef\xbb\xbf)?[ \t\r\n]*null"
_NULL_FIRST, _NULL_NEXT = re.compile(_NULL), re.compile(rb"\}" + _NULL)


class JsonReader(TextReader):
    """Reads newline-delimited JSON. Fields that nobody asked for are skipped.

    A row whose value has another JSON type than the sample's (the number in "age": "26") is read on its own
    and its values are converted where that loses nothing.
    """

    dialect = Dialect()
    lines_are_checked = False

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        """The fields of the first 1000 rows, with the types that they have there; null where a field is always null."""
        return pa.schema([_natural(field) for field in cls._inferred(file, 1000).schema])

    @classmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        batch = cls._inferred(file, rows)
        fields = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in batch.schema]
        return batch.cast(pa.schema([_natural(field) for field in fields]))

    @classmethod
    def _inferred(cls, file: str, rows: int) -> pa.RecordBatch:
        raw = first_block(file, _SAMPLE_BYTES)
        lines = [line for line in raw.split(b"\n") if line.strip()]
        if len(raw) == _SAMPLE_BYTES and len(lines) > 1:
            lines.pop()
        good = []
        for line in lines[:rows]:
            try:
                if isinstance(json.loads(line), dict):
                    good.append(line)
            except (ValueError, RecursionError):
                continue
        if lines and not good:
            raise FormatError(f"{file}: none of its first lines is a JSON object; is it newline-delimited JSON?")
        if not good:
            return pa.RecordBatch.from_pylist([])
        try:
            return _parse(b"\n".join(good), None)
        except pa.ArrowInvalid:
            return _parse_lenient(good)

    def splits(self, file: str, size: int, split_bytes: int) -> list[Split]:
        if compression_of(file) or size <= split_bytes:
            return [Split(file, 0, size, size)] if size else []
        cuts = [0]
        with files.open_input(file) as handle:
            for wanted in range(split_bytes, size, split_bytes):
                if wanted > cuts[-1] and (boundary := _next_line(handle, wanted)) < size:
                    cuts.append(boundary)
        cuts.append(size)
        return [Split(file, a, b, b - a) for a, b in zip(cuts, cuts[1:], strict=False)]

    def key_of(self, raw: bytes, context: Any) -> str | None:
        try:
            row = json.loads(raw.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
        key = row.get(self.spec.key) if isinstance(row, dict) else None
        return None if key is None else str(key)

    def parse(self, raw: bytes, context: Any) -> pa.RecordBatch:
        _refuse_null(raw)
        return self._columns(b"" if raw.isspace() else raw, _parse)

    def parse_lines(self, raw: memoryview) -> pa.RecordBatch:
        """The same, on all cores, of lines that begin with { and end with }."""
        if count(raw, b"}") > count(raw, b"\n") + 1:
            _refuse_null(bytes(raw))
        return self._columns(raw, _parse_lines)

    def _columns(self, raw: _Raw, parse: Callable[[_Raw, pa.Schema], pa.RecordBatch]) -> pa.RecordBatch:
        if not raw:
            return pa.RecordBatch.from_pylist([], schema=self.spec.columns)
        plain = pa.schema([pa.field(f.name, _value_type(f.type)) for f in self.spec.columns])
        batch = parse(raw, plain).select(plain.names)
        batch.validate(full=True)
        _refuse_infinity(batch)
        return batch

    def parse_alone(self, raw: bytes, context: Any) -> pa.RecordBatch:
        try:
            row = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
        except (UnicodeError, pa.ArrowInvalid):
            raise
        except (ValueError, RecursionError) as error:
            # Among them an integer with too many digits.
            raise pa.ArrowInvalid(f"not JSON: {error}") from None
        if not isinstance(row, dict):
            raise pa.ArrowInvalid("not a JSON object")
        columns = []
        for field in self.spec.columns:
            wanted = _value_type(field.type)
            value = row.get(field.name)
            try:
                columns.append(pa.array([value]).cast(wanted))
            except (pa.ArrowException, OverflowError, TypeError):
                raise pa.ArrowInvalid(
                    f"conversion error: column '{field.name}': {str(value)[:80]!r} is not a {wanted}"
                ) from None
        batch = pa.RecordBatch.from_arrays(columns, names=self.spec.columns.names)
        _refuse_infinity(batch)
        return batch

    def one_line(self, payload: bytes) -> bytes:
        return payload.translate(LINE_ENDS_TO_TABS).strip(b" \t")

    def are_rows(self, raw: bytes, starts: Positions, ends: Positions) -> bool:
        # Two objects on a line, and one on two lines, would cancel out.
        found = np.frombuffer(raw, np.uint8)
        whole = (found[starts] == ord("{")) & (found[ends - 1] == ord("}"))
        return all(
            (row := raw[starts[i] : ends[i]].strip()).startswith(b"{") and row.endswith(b"}")
            for i in np.flatnonzero(~whole).tolist()
        )

    def stage_of(self, error: Exception) -> str:
        return "coerce" if "changed from" in str(error) or "conversion error" in str(error) else "decode"


def count(raw: memoryview, character: bytes) -> int:
    """How often a character is in bytes: where that is often, several times as fast as bytes.count."""
    return int(np.count_nonzero(np.frombuffer(raw, np.uint8) == character[0]))


def _refuse_null(raw: bytes) -> None:
    """A row that is null would end the process (pyarrow 25). In a string the same letters mean reading it alone."""
    if b"null" in raw and (_NULL_FIRST.match(raw) or _NULL_NEXT.search(raw)):
        raise pa.ArrowInvalid("null is not a JSON object")


def _refuse_infinity(batch: pa.RecordBatch) -> None:
    """JSON has no infinity: one in a column was a number too large for its type."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_floating(column.type) and pc.any(pc.is_inf(column)).as_py():
            raise pa.ArrowInvalid(f"conversion error: column '{name}': a number is too large for a {column.type}")


def _no_constant(name: str) -> Any:
    raise pa.ArrowInvalid(f"{name} is not JSON")


def _value_type(type: pa.DataType) -> pa.DataType:
    return type.value_type if pa.types.is_dictionary(type) else type


def _natural(field: pa.Field) -> pa.Field:
    """The parser takes date-like strings for timestamps; they are strings to the person who wrote them."""
    if pa.types.is_timestamp(field.type):
        return field.with_type(pa.string())
    return field


def _parse_lines(raw: _Raw, schema: pa.Schema) -> pa.RecordBatch:
    if len(raw) <= 2 * _LINES_AT_ONCE:
        return _parse(raw, schema)
    try:
        return _parse(raw, schema, _LINES_AT_ONCE)
    except pa.ArrowInvalid as error:
        if "straddling" not in str(error):
            raise
        # A row is longer than that.
        return _parse(raw, schema)


def _parse(raw: _Raw, schema: pa.Schema | None, at_once: int = 0) -> pa.RecordBatch:
    """What the parser makes of rows, all at once, or on all cores so many bytes at once."""
    table = pajson.read_json(
        pa.BufferReader(raw),
        read_options=pajson.ReadOptions(use_threads=at_once > 0, block_size=at_once or len(raw) + 1024),
        parse_options=pajson.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="ignore" if schema else "infer"
        ),
    )
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _parse_lenient(lines: list[bytes]) -> pa.RecordBatch:
    """The columns of a sample whose rows disagree on types: the type that most rows have."""
    kinds: dict[str, dict[pa.DataType, int]] = {}
    for line in lines:
        try:
            row = _parse(line, None)
        except pa.ArrowInvalid:
            continue
        for field in row.schema:
            counts = kinds.setdefault(field.name, {})
            counts[field.type] = counts.get(field.type, 0) + 1
    schema = pa.schema([(name, max(counts, key=lambda t: counts[t])) for name, counts in kinds.items()])
    good = []
    for line in lines:
        try:
            good.append(_parse(line, schema).select(schema.names))
        except pa.ArrowInvalid:
            continue
    batches = pa.Table.from_batches(good, schema).combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=schema)


def _next_line(file: IO[bytes], wanted: int) -> int:
    """Offset of the first line that begins at or after `wanted`, or the end of the file."""
    file.seek(wanted - 1)
    at = wanted - 1
    while piece := files.read_fully(file, 1 << 16):
        found = piece.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(piece)
    return at


class JsonWriter(Writer):
    """Writes newline-delimited JSON. Numbers that JSON cannot hold (NaN, infinities) become null."""

    extension = "jsonl"
    libraries = ("polars",)

    def write(self, batch: pa.RecordBatch) -> None:
        import polars as pl

        encoded = io.BytesIO()
        cast(pl.DataFrame, pl.from_arrow(batch)).write_ndjson(encoded)
        self.file.write(encoded.getbuffer())

    @classmethod
    def output_type(cls, type: pa.DataType) -> pa.DataType:
        if pa.types.is_dictionary(type):
            return type.value_type
        if pa.types.is_binary(type) or pa.types.is_large_binary(type):
            return pa.string()
        return type
