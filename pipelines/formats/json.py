"""Reads and writes newline-delimited JSON: one object a line."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import is_list, is_text
from pipelines.encodings import charset_of, is_utf16
from pipelines.formats import json_values
from pipelines.formats.base import FormatError, ReadSpec, Split, Writer, encoding
from pipelines.formats.charset import UTF_16_BOMS, to_utf8
from pipelines.formats.dialect import Dialect
from pipelines.formats.json_parser import Raw, parse_lenient, parse_lines, parse_rows
from pipelines.formats.output_values import nested_type, polars_type
from pipelines.formats.table import broken_file
from pipelines.formats.text import TextReader, is_number
from pipelines.formats.text_blocks import first_block, is_whole, line_cuts, plain_message, starts_as_utf16
from pipelines.rows.origin import Block, Positions, RejectedRow

_SAMPLE_BYTES = 1 << 20

LINE_ENDS_TO_TABS = bytes.maketrans(b"\r\n", b"\t\t")
"""A tab is white space where a line end is, and no more legal than that within a string."""

_IS_UTF_16 = 'is UTF-16: set source.encoding to "utf-16"'


_TEXT_CHANGED = re.compile(r"Column\(/(.*)\) changed from string to (?:number|boolean)")
_OTHER_FORM = re.compile(r"Column\(/(.*?)(?:/\[\])*\) changed from (?:string to object|object to string)")
_NO_INTEGER = "Failed to convert JSON to"
_CHANGED = re.compile(r"Column\(/(.*)\) changed from \w+ to (?:number|boolean|string)")
_TOO_LARGE = re.compile(r"column '(.*)': a number is too large")

_EXACT_FLOATS = float(1 << 53)

_NULL = rb"[ \t\r\n]*(?:\xef\xbb\xbf)?[ \t\r\n]*null"
_NULL_FIRST, _NULL_NEXT = re.compile(_NULL), re.compile(rb"\}" + _NULL)


class JsonReader(TextReader):
    """Reads newline-delimited JSON. Fields that nobody asked for are skipped.

    A value of another JSON type than the sample's is converted where that changes nothing (see `json_values`): the
    numbers of a block that are only for the model together, as text, the rest by the row.
    """

    dialect = Dialect()
    lines_are_checked = False

    def __init__(self, spec: ReadSpec) -> None:
        super().__init__(spec)
        self._charset = charset_of(spec.options.get("encoding"))

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        """Returns the fields of the first 1000 rows, with the types that they have there; null where a field is always
        null.
        """
        return cls._inferred(file, options, 1000).schema

    @classmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        batch = cls._inferred(file, options, rows)
        fields = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in batch.schema]
        return batch.cast(pa.schema(fields))

    @classmethod
    def _inferred(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        encoding = options.get("encoding")
        raw = first_block(file, _SAMPLE_BYTES, encoding)
        if raw.startswith(UTF_16_BOMS):
            raise FormatError(f"{file}: {_IS_UTF_16}")
        lines = [line for line in raw.split(b"\n") if line.strip()]
        if len(raw) == _SAMPLE_BYTES and len(lines) > 1:
            lines.pop()
        good, values = [], []
        for line in lines[:rows]:
            try:
                line = to_utf8(line, charset_of(encoding))
                row = json_values.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                good.append(line)
                values.append(row)
        if lines and not good:
            if lines[0].lstrip().startswith(b"[") and lines[0].rstrip().endswith(b"]"):
                wanted = '{"<input>": [...]}'
                raise FormatError(f"{file}: its lines are lists, not objects with names; write each as {wanted}")
            raise FormatError(f"{file}: none of its first lines is a JSON object; is it newline-delimited JSON?")
        if not good:
            return pa.RecordBatch.from_pylist([])
        try:
            batch = parse_rows(b"\n".join(good), None)
        except pa.ArrowInvalid:
            batch = parse_lenient(good)
        batch = batch.cast(pa.schema([_natural(field) for field in batch.schema]))
        return batch.cast(json_values.marked(batch.schema, values))

    def splits(self, file: str, size: int, split_bytes: int) -> list[Split]:
        if is_whole(file, self.spec.options) or size <= split_bytes or starts_as_utf16(file):
            return [Split(file, 0, size, size)] if size else []
        cuts = line_cuts(file, size, split_bytes)
        return [Split(file, a, b, b - a) for a, b in zip(cuts, cuts[1:], strict=False)]

    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        if split.start == 0 and not is_utf16(self.spec.options.get("encoding")) and starts_as_utf16(split.file):
            yield broken_file(split.file, None, split.nbytes, _IS_UTF_16)
            return
        yield from super().read(split)

    def key_of(self, raw: bytes, context: Any) -> str | None:
        try:
            row = json_values.loads(to_utf8(raw, self._charset), lenient=True)
        except (ValueError, RecursionError):
            return None
        key = row.get(self.spec.key) if isinstance(row, dict) else None
        return None if key is None else json_values.text_of(key)

    def columns(self, raw: bytes, context: Any) -> pa.RecordBatch:
        raw = to_utf8(raw, self._charset)
        _refuse_null(raw)
        return self._columns(b"" if raw.isspace() else raw, parse_rows)

    def line_columns(self, raw: memoryview) -> pa.RecordBatch:
        """Does the same on all cores, with lines that begin with { and end with }."""
        if count(raw, b"}") > count(raw, b"\n") + 1:
            _refuse_null(bytes(raw))
        return self._columns(raw, parse_lines)

    def _columns(self, raw: Raw, parse: Callable[[Raw, pa.Schema], pa.RecordBatch]) -> pa.RecordBatch:
        if not raw:
            return pa.RecordBatch.from_pylist([], schema=self.spec.columns)
        types = {field.name: _value_type(field.type) for field in self.spec.columns} | self._forms
        texts = self._texts
        turned: set[str] = set()
        while True:
            try:
                return self._checked(parse(self._quoted(raw, texts), _schema(types)).select(list(types)), raw)
            except pa.ArrowInvalid as error:
                if (other := _OTHER_FORM.search(str(error))) and self._turns(other.group(1), types, turned):
                    continue
                found = _TEXT_CHANGED.search(str(error))
                name = found.group(1) if found else ""
                if name in texts or not is_text(types.get(name, pa.null())) or self._hides(name):
                    return self._again(raw, parse, types, texts, error)
                texts = texts | {name}
                self._texts = texts

    def _again(
        self,
        raw: Raw,
        parse: Callable[[Raw, pa.Schema], pa.RecordBatch],
        types: dict[str, pa.DataType],
        texts: frozenset[str],
        error: pa.ArrowInvalid,
    ) -> pa.RecordBatch:
        """Parses rows in which the model's columns have values of other types. Raises the error if that fails too."""
        loose = {n: t for n, t in types.items() if n not in self.spec.written and is_number(t) and not self._hides(n)}
        whole = {n for n, t in loose.items() if pa.types.is_integer(t)}
        if whole and _NO_INTEGER in str(error):
            as_floats = _schema(types | dict.fromkeys(whole, pa.float64()))
            try:
                batch = self._checked(parse(self._quoted(raw, texts), as_floats).select(list(types)), raw)
                if not any(_is_large(batch[name]) for name in whole):
                    return batch.cast(_schema(types))
            except pa.ArrowInvalid:
                pass
        unfit: set[str] = set()
        while more := _unfit(error, loose) - unfit:
            # The second time all of them, so that there is no third.
            unfit = set(loose) if unfit else more
            as_texts = _schema(types | dict.fromkeys(unfit, pa.string()))
            try:
                return self._checked(parse(self._quoted(raw, texts | unfit), as_texts).select(list(types)), raw)
            except pa.ArrowInvalid as second:
                error = second
        raise error

    def _turns(self, name: str, types: dict[str, pa.DataType], turned: set[str]) -> bool:
        """Takes a column for one of text, not of objects with base64, or the other way; each of a block once."""
        if name in turned or name in self.spec.written or name not in types or self._hides(name):
            return False
        form = json_values.other_form(types[name])
        if form is None:
            return False
        turned.add(name)
        types[name] = form
        self._forms = self._forms | {name: form}
        return True

    _forms: dict[str, pa.DataType] = {}
    """Columns of text in which objects with base64 were found, or the other way, with the types that they had."""

    _texts: frozenset[str] = frozenset()
    """Columns of text in which numbers or booleans were found: they are made text before they are parsed."""

    def _quoted(self, raw: Raw, names: frozenset[str]) -> Raw:
        if not names:
            return raw
        words = {field.name for field in self.spec.columns if is_text(field.type)} - self.spec.written
        return json_values.quoted(raw, names, names & words)

    def _hides(self, name: str) -> bool:
        """Whether objects within the columns have a field of that name, which would be changed with it."""
        return name in json_values.nested_names(self.spec.columns.types)

    def _checked(self, batch: pa.RecordBatch, raw: Raw) -> pa.RecordBatch:
        batch.validate(full=True)
        _refuse_infinity(batch)
        for name in self.spec.written & set(batch.schema.names):
            if _is_large(batch[name]):
                self._refuse_inexact(name, batch[name], raw)
        return batch

    def _refuse_inexact(self, name: str, values: pa.Array, raw: Raw) -> None:
        """Refuses integers that a float64 does not hold: they would come out as others."""
        if pa.types.is_floating(values.type) and not self._hides(name):
            texts = parse_rows(json_values.quoted(raw, [name]), _schema({name: pa.string()}))[name]
            integers = texts.filter(pc.match_substring_regex(texts, "^-?[0-9]+$"))
            exact = all(map(json_values.is_exact, pc.unique(integers).to_pylist()))
        else:
            rows = map(json_values.loads, filter(bytes.strip, bytes(raw).split(b"\n")))
            exact = all(json_values.is_exact_within(row.get(name)) for row in rows)
        if not exact:
            raise pa.ArrowInvalid(f"conversion error: column '{name}': an integer would be changed by becoming a float")

    def parse_alone(self, raw: bytes, context: Any) -> pa.RecordBatch:
        try:
            row = json_values.loads(to_utf8(raw, self._charset))
        except UnicodeError:
            raise
        except (ValueError, RecursionError) as error:
            raise pa.ArrowInvalid(f"not JSON: {error}") from None
        if not isinstance(row, dict):
            raise pa.ArrowInvalid("not a JSON object")
        columns = []
        for field in self.spec.columns:
            wanted, value = _value_type(field.type), row.get(field.name)
            if field.name not in self.spec.written and json_values.has_other_form(value, wanted):
                wanted = json_values.other_form(wanted) or wanted
            try:
                if field.name == self.spec.key and pa.types.is_integer(wanted) and value is not None:
                    columns.append(pa.array([str(value)]).cast(wanted))
                else:
                    columns.append(json_values.column_of(value, wanted, written=field.name in self.spec.written))
            except Exception as error:
                raise pa.ArrowInvalid(f"conversion error: column '{field.name}': {plain_message(error)}") from None
        batch = pa.RecordBatch.from_arrays(columns, names=self.spec.columns.names)
        batch.validate(full=True)
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
        signs = ("changed from", "conversion error", _NO_INTEGER)
        return "coerce" if any(sign in str(error) for sign in signs) else "decode"


def count(raw: memoryview, character: bytes) -> int:
    """Returns how often a character is in bytes: where that is often, several times as fast as bytes.count."""
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


def _unfit(error: Exception, types: Mapping[str, pa.DataType]) -> set[str]:
    """Those columns in which an error of the parser, or of these checks, may have found a value that is no number."""
    if _NO_INTEGER in str(error):
        return {name for name, type in types.items() if pa.types.is_integer(type)}
    found = _CHANGED.search(str(error)) or _TOO_LARGE.search(str(error))
    return {found.group(1)} & types.keys() if found else set()


def _is_large(values: pa.Array) -> bool:
    """Whether values have floats that may have been integers which a float64 does not hold."""
    if is_list(values.type):
        return _is_large(values.flatten())
    if pa.types.is_struct(values.type):
        return any(map(_is_large, values.flatten()))
    if not pa.types.is_floating(values.type):
        return False
    return bool(pc.any(pc.greater_equal(pc.abs(values), _EXACT_FLOATS)).as_py())


def _schema(types: Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema(list(types.items()))


def _value_type(type: pa.DataType) -> pa.DataType:
    return type.value_type if pa.types.is_dictionary(type) else type


def _natural(field: pa.Field) -> pa.Field:
    """The parser takes date-like strings for timestamps; they are strings to the person who wrote them."""
    if pa.types.is_timestamp(field.type):
        return field.with_type(pa.string())
    return field


class JsonWriter(Writer):
    """Writes newline-delimited JSON. Numbers that JSON cannot hold (NaN, infinities) become null."""

    extension = "jsonl"
    libraries = ("polars",)

    def write(self, batch: pa.RecordBatch) -> None:
        import polars as pl

        encoded = io.BytesIO()
        with encoding("JSON"):
            cast(pl.DataFrame, pl.from_arrow(batch)).write_ndjson(encoded)
        self.file.write(encoded.getbuffer())

    @classmethod
    def output_type(cls, type: pa.DataType) -> pa.DataType:
        """Lists and structs are JSON's own. Bytes are written as the text that they are, durations in ISO 8601."""
        return nested_type(type, lambda leaf: polars_type(leaf, "JSON"), "JSON")
