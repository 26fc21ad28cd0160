"""Reads CSV files: header line, one row a line, quoted fields may span lines (RFC 4180).

| bytes | becomes |
|---|---|
| an empty field, quoted or not, or one of `null_values` in its place | null |
| an empty field, if `null_values` is an empty list | empty text |
| a quote that is never closed, a wrong number of fields, bad UTF-8 | a dead letter of that line |
| a number that is none of its type, or too large for it | a dead letter; `25.0`, `1e3` and `+7` are integers |

A file is cut at row boundaries. Where it has quotes, a boundary counts only if the quotes around it can be
read in one way; a file in which they cannot is read in one piece, and that is said.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from pipelines import storage
from pipelines.encodings import charset_of
from pipelines.formats.base import MAX_ROW_BYTES, FormatError, ReadSpec, Split
from pipelines.formats.charset import UTF_16_BOMS, to_utf8
from pipelines.formats.dialect import Dialect, Spans
from pipelines.formats.row_finder import RowFinder
from pipelines.formats.table import broken_file
from pipelines.formats.text import TextReader, is_number
from pipelines.formats.text_blocks import BOM, first_block, is_whole, line_cuts, plain_message
from pipelines.rows.origin import Block, Positions, RejectedRow

_log = logging.getLogger(__name__)
_WINDOW = 1 << 20
_SPACES = " \t"
_HINT = '; if the file is in another encoding, set source.encoding ("cp1252")'
_UNFIT = re.compile(r"In CSV column #(\d+): (?:Row #\d+: )?CSV conversion error to (?!.*invalid UTF8)")
_SHOWN_BYTES = 96


class CsvReader(TextReader):
    """Reads CSV.

    Options: `delimiter`, `quote`, `null_values`, `column_names` (for files without a header), `encoding`, `trim`,
    `decimal`.
    """

    def __init__(self, spec: ReadSpec) -> None:
        super().__init__(spec)
        self.dialect = _dialect_of(spec.options)
        self.delimiter = self.dialect.delimiter.decode()
        self._charset = charset_of(spec.options.get("encoding"))
        given = spec.options.get("null_values")
        self._nulls = [""] if given is None else list(given)
        self._trims = bool(spec.options.get("trim"))
        self._decimal = str(spec.options.get("decimal") or ".")

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        names, _ = read_header(file, options)
        return pa.schema([(name, pa.string()) for name in names])

    @classmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        schema = cls.schema(file, options)
        names, start = read_header(file, options)
        reader = cls(ReadSpec(schema, options))
        raw = first_block(file, _WINDOW, options.get("encoding"))
        ends = reader.dialect.row_ends(raw[start:], final=len(raw) < _WINDOW)[: rows + 1]
        for piece in reader.decode(file, start, raw[start : start + int(ends[-1]) if len(ends) else start], names):
            if not isinstance(piece, tuple) and hasattr(piece, "batch"):
                return piece.batch.slice(0, rows)
        return pa.RecordBatch.from_pylist([], schema=schema)

    def splits(self, file: str, size: int, split_bytes: int) -> list[Split]:
        names, start = read_header(file, self.spec.options)
        if is_whole(file, self.spec.options):
            return [Split(file, start, size, size, names)]
        if self.dialect.quote is None:
            cuts = [start, *(cut for cut in line_cuts(file, size, split_bytes) if cut > start)]
            return [Split(file, a, b, b - a, names) for a, b in zip(cuts, cuts[1:], strict=False)]
        cuts = [start, *self._boundaries(file, start, size, split_bytes), size]
        return [Split(file, a, b, b - a, names) for a, b in zip(cuts, cuts[1:], strict=False) if b > a]

    def _boundaries(self, file: str, start: int, size: int, split_bytes: int) -> list[int]:
        found: list[int] = []
        unclear = 0
        if size - start > split_bytes:
            with storage.open_input(file) as handle:
                cutter = RowFinder(handle, self.dialect)
                for wanted in range(start + split_bytes, size, split_bytes):
                    if found and wanted <= found[-1]:
                        continue
                    boundary = cutter.next_row(wanted)
                    if boundary is None:
                        unclear += 1
                    elif boundary < size:
                        found.append(boundary)
        if unclear:
            _log.warning(
                "%s: its quotes can be read in more than one way at %d places, so it is not cut there "
                "(fewer workers share it)",
                file,
                unclear,
            )
        return found

    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        if split.context is None:
            try:
                names, start = read_header(split.file, self.spec.options)
            except FormatError as error:
                message = plain_message(error).removeprefix(split.file).lstrip(": ")
                yield broken_file(split.file, None, split.nbytes, message)
                return
            split = replace(split, start=start, context=names)
        yield from super().read(split)

    def format_of(self, context: Any) -> dict[str, Any]:
        return {"type": "csv", "columns": list(context or ()), "delimiter": self.delimiter}

    def message_of(self, error: Exception, context: Any) -> str:
        def name(match: re.Match[str]) -> str:
            return f"column '{context[int(match.group(1))]}'"

        text = re.sub(r"In CSV column #(\d+)", name, plain_message(error))
        return text if self._charset or "invalid UTF8" not in text else f"{text}{_HINT}"

    def key_of(self, raw: bytes, context: Any) -> str | None:
        if self.spec.key not in context:
            return None
        text = raw.decode(self._charset or "utf-8", "replace")
        try:
            fields = next(csv.reader([text], **_settings(self.dialect)), [])
        except csv.Error:
            fields = text.split(self.delimiter)
        place = context.index(self.spec.key)
        key = fields[place].strip(_SPACES if self._trims else "") if place < len(fields) else ""
        return key or None

    def context_from(self, format: Mapping[str, Any]) -> Any:
        return tuple(format["columns"])

    def stage_of(self, error: Exception) -> str:
        return "coerce" if "conversion error" in str(error) and "UTF8" not in str(error) else "decode"

    def columns(self, raw: bytes, context: Any) -> pa.RecordBatch:
        if not raw or (raw.isspace() and not raw.strip(b"\r\n")):
            return pa.RecordBatch.from_pylist([], schema=self.spec.columns)
        raw, types = to_utf8(raw, self._charset), self._types
        while True:
            try:
                batch = self._parse_as(raw, context, types)
                unfit = _with_infinity(batch)
            except pa.ArrowInvalid as error:
                unfit = [name for name in [self._unfit(error, context)] if name and is_number(types[name])]
                if not unfit:
                    raise
            if not unfit:
                return batch
            # Numbers of a second column do not fit either: a third attempt is the last.
            texts = unfit if types == self._types else [name for name, type in types.items() if is_number(type)]
            types.update(dict.fromkeys(texts, pa.string()))

    @property
    def _types(self) -> dict[str, pa.DataType]:
        return {field.name: field.type for field in self.spec.columns}

    @staticmethod
    def _unfit(error: Exception, context: Any) -> str | None:
        """The column with a value that is none of its type, if that is what an error of the parser says."""
        match = _UNFIT.search(str(error))
        return context[int(match.group(1))] if match else None

    def hopeless(self, raw: bytes, spans: Spans, context: Any) -> dict[int, str]:
        """Returns rows without quotes that have not as many fields as there are columns."""
        buffer = np.frombuffer(raw, np.uint8)
        fields = 1 + _count_within(buffer == self.delimiter.encode()[0], spans)
        quote = self.dialect.quote
        plain = quote is None or _count_within(buffer == quote[0], spans) == 0
        short = spans.ends - spans.starts <= MAX_ROW_BYTES
        found = {}
        for row in np.flatnonzero((fields != len(context)) & plain & short).tolist():
            text = raw[spans.starts[row] : min(spans.ends[row], spans.starts[row] + _SHOWN_BYTES)]
            more = " ..." if spans.ends[row] - spans.starts[row] > _SHOWN_BYTES else ""
            found[row] = (
                f"CSV parse error: Expected {len(context)} columns, got {fields[row]}: "
                f"{text.decode('utf-8', 'replace')}{more}"
            )
        return found

    def _parse_as(self, raw: bytes, context: Any, types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
        table = pacsv.read_csv(
            pa.BufferReader(raw),
            read_options=pacsv.ReadOptions(column_names=list(context), use_threads=False, block_size=len(raw) + 1024),
            parse_options=pacsv.ParseOptions(
                delimiter=self.delimiter,
                quote_char=self.dialect.quote.decode() if self.dialect.quote else False,
                newlines_in_values=self.dialect.quote is not None,
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                include_missing_columns=True,
                null_values=self._nulls,
                decimal_point=self._decimal,
                strings_can_be_null=True,
            ),
        )
        batch = _one_batch(table)
        batch = self._trimmed(batch) if self._trims else batch
        return batch if self._decimal == "." else self._with_points(batch)

    def _with_points(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Numbers that could not be parsed, with a point for the decimal comma; one that has a point stays none."""
        for index, field in enumerate(self.spec.columns):
            values = batch.column(index)
            if is_number(field.type) and pa.types.is_string(values.type):
                has_point = pc.match_substring(values, ".")
                marked = pc.binary_join_element_wise(values, " (a decimal comma is expected)", "")
                values = pc.if_else(has_point, marked, pc.replace_substring(values, ",", "."))
                batch = batch.set_column(index, batch.schema.field(index), values)
        return batch

    def _trimmed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Texts without the spaces around them; pyarrow's numbers have none."""
        for index, values in enumerate(batch.columns):
            words = values.dictionary if pa.types.is_dictionary(values.type) else values
            if not pa.types.is_string(words.type):
                continue
            trimmed = pc.utf8_trim(words, _SPACES)
            trimmed = pc.if_else(pc.is_in(trimmed, pa.array(self._nulls, pa.string())), None, trimmed)
            if trimmed.equals(words):
                continue
            if words is not values:
                # Words that differed only in spaces are one word now.
                trimmed = trimmed.take(values.indices).dictionary_encode().cast(values.type)
            batch = batch.set_column(index, batch.schema.field(index), trimmed)
        return batch


def _dialect_of(options: Mapping[str, Any]) -> Dialect:
    """How rows and fields are told apart, by the settings of the config."""
    quote = options.get("quote")
    delimiter = str(options.get("delimiter") or ",")
    return Dialect(quote=b'"' if quote is None else quote.encode() or None, delimiter=delimiter.encode())


def _settings(dialect: Dialect) -> dict[str, Any]:
    """The same for Python's reader."""
    if dialect.quote is None:
        return {"delimiter": dialect.delimiter.decode(), "quoting": csv.QUOTE_NONE}
    return {"delimiter": dialect.delimiter.decode(), "quotechar": dialect.quote.decode()}


def _with_infinity(batch: pa.RecordBatch) -> list[str]:
    """The columns with infinite values: the parser makes them of fields that say so, but of 1e40 too."""
    return [
        name
        for name, values in zip(batch.schema.names, batch.columns, strict=True)
        if pa.types.is_floating(values.type) and pc.any(pc.is_inf(values)).as_py()
    ]


def _count_within(found: npt.NDArray[np.bool_], spans: Spans) -> Positions:
    """How many of the bytes found are in each row."""
    places = np.flatnonzero(found)
    counts: Positions = np.searchsorted(places, spans.ends) - np.searchsorted(places, spans.starts)
    return counts


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def read_header(file: str, options: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """Reads the column names of a CSV file and the offset of its first row. An empty file has no columns.

    Raises FormatError.
    """
    dialect = _dialect_of(options)
    raw = first_block(file, _WINDOW, options.get("encoding"))
    if raw.startswith(UTF_16_BOMS) and charset_of(options.get("encoding")) is None:
        raise FormatError(f'{file}: is UTF-16: set source.encoding to "utf-16"')
    start = len(BOM) if raw.startswith(BOM) else 0
    given = options.get("column_names")
    if given:
        return tuple(given), start
    if not raw[start:].strip(b"\r\n"):
        return (), len(raw)
    while raw[start : start + 1] in (b"\r", b"\n"):
        start += 1
    ends = dialect.row_ends(raw[start:], final=len(raw) < _WINDOW)
    if not len(ends):
        raise FormatError(f"{file}: no header line in the first {_WINDOW:,} bytes; is it a CSV file?")
    end = start + int(ends[0])
    try:
        line = raw[start:end].decode(charset_of(options.get("encoding")) or "utf-8").rstrip("\r\n")
        names = tuple(next(csv.reader(io.StringIO(line, newline=""), strict=True, **_settings(dialect))))
    except UnicodeError as error:
        raise FormatError(f"{file}: its header line is not CSV: {plain_message(error)}{_HINT}") from None
    except csv.Error as error:
        raise FormatError(f"{file}: its header line is not CSV: {plain_message(error)}") from None
    names = tuple(name.strip(_SPACES) for name in names) if options.get("trim") else names
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise FormatError(
            f"{file}: column {twice[0]!r} appears twice in the header; rename one, or give all names in "
            "source.column_names"
        )
    return names, end
