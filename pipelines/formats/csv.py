"""CSV files: header line, one row a line, quoted fields may span lines (RFC 4180).

| bytes | becomes |
|---|---|
| an empty field, or one of `null_values` | null |
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
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from pipelines import files
from pipelines.formats.base import MAX_ROW_BYTES, FormatError, ReadSpec, Split, Writer, encoding
from pipelines.formats.dialect import Dialect, Spans
from pipelines.formats.output_values import nested_type, polars_type
from pipelines.formats.quoting import quoting_fits
from pipelines.formats.table import broken_file
from pipelines.formats.text import TextReader, is_number
from pipelines.formats.text_blocks import compression_of, first_block, plain_message
from pipelines.rows import Block, Positions, RejectedRow

_log = logging.getLogger(__name__)
_BOM = b"\xef\xbb\xbf"
_WINDOW = 1 << 20
_UNFIT = re.compile(r"In CSV column #(\d+): (?:Row #\d+: )?CSV conversion error to (?!.*invalid UTF8)")
_SHOWN_BYTES = 96


class CsvReader(TextReader):
    """Reads CSV. Options: `delimiter`, `null_values`, `column_names` (for files without a header)."""

    def __init__(self, spec: ReadSpec) -> None:
        super().__init__(spec)
        self.delimiter = str(spec.options.get("delimiter") or ",")
        self.dialect = Dialect(quote=b'"', delimiter=self.delimiter.encode())

    @classmethod
    def schema(cls, file: str, options: Mapping[str, Any]) -> pa.Schema:
        names, _ = read_header(file, options)
        return pa.schema([(name, pa.string()) for name in names])

    @classmethod
    def sample(cls, file: str, options: Mapping[str, Any], rows: int) -> pa.RecordBatch:
        schema = cls.schema(file, options)
        names, start = read_header(file, options)
        reader = cls(ReadSpec(schema, options))
        raw = first_block(file)
        ends = reader.dialect.row_ends(raw[start:], final=len(raw) < _WINDOW)[: rows + 1]
        for piece in reader.decode(file, start, raw[start : start + int(ends[-1]) if len(ends) else start], names):
            if not isinstance(piece, tuple) and hasattr(piece, "batch"):
                return piece.batch.slice(0, rows)
        return pa.RecordBatch.from_pylist([], schema=schema)

    def splits(self, file: str, size: int, split_bytes: int) -> list[Split]:
        names, start = read_header(file, self.spec.options)
        if compression_of(file):
            return [Split(file, start, size, size, names)]
        cuts = [start, *self._boundaries(file, start, size, split_bytes), size]
        return [Split(file, a, b, b - a, names) for a, b in zip(cuts, cuts[1:], strict=False) if b > a]

    def _boundaries(self, file: str, start: int, size: int, split_bytes: int) -> list[int]:
        found: list[int] = []
        unclear = 0
        if size - start > split_bytes:
            with files.open_input(file) as handle:
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

        return re.sub(r"In CSV column #(\d+)", name, plain_message(error))

    def key_of(self, raw: bytes, context: Any) -> str | None:
        if self.spec.key not in context:
            return None
        text = raw.decode("utf-8", "replace")
        try:
            fields = next(csv.reader([text], delimiter=self.delimiter), [])
        except csv.Error:
            fields = text.split(self.delimiter)
        place = context.index(self.spec.key)
        return fields[place] if place < len(fields) and fields[place] else None

    def context_from(self, format: Mapping[str, Any]) -> Any:
        return tuple(format["columns"])

    def stage_of(self, error: Exception) -> str:
        return "coerce" if "conversion error" in str(error) and "UTF8" not in str(error) else "decode"

    def columns(self, raw: bytes, context: Any) -> pa.RecordBatch:
        if not raw or (raw.isspace() and not raw.strip(b"\r\n")):
            return pa.RecordBatch.from_pylist([], schema=self.spec.columns)
        types = self._types
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
        """Rows without quotes that have not as many fields as there are columns."""
        buffer = np.frombuffer(raw, np.uint8)
        fields = 1 + _count_within(buffer == self.delimiter.encode()[0], spans)
        plain = _count_within(buffer == ord('"'), spans) == 0
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
            parse_options=pacsv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                include_missing_columns=True,
                null_values=list(self.spec.options.get("null_values") or [""]),
                strings_can_be_null=True,
            ),
        )
        return _one_batch(table)


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
    """Column names of a CSV file and the offset of its first row. An empty file has no columns.

    Raises FormatError.
    """
    dialect = Dialect(quote=b'"', delimiter=str(options.get("delimiter") or ",").encode())
    raw = first_block(file, _WINDOW)
    start = len(_BOM) if raw.startswith(_BOM) else 0
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
        line = raw[start:end].decode("utf-8").rstrip("\r\n")
        names = tuple(
            next(csv.reader(io.StringIO(line, newline=""), delimiter=dialect.delimiter.decode(), strict=True))
        )
    except (csv.Error, UnicodeError) as error:
        raise FormatError(f"{file}: its header line is not CSV: {plain_message(error)}") from None
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise FormatError(
            f"{file}: column {twice[0]!r} appears twice in the header; rename one, or give all names in "
            "source.column_names"
        )
    return names, end


class RowFinder:
    """Finds rows in the middle of a file.

    Whether a quoted field is open at some place shows at the next quote behind it: an opening quote follows a
    delimiter or a line end, a closing one precedes one. Both readings are tried on a window of the file that begins
    there, and one of them must be the only one that fits.

    Args:
      file: the raw file, seekable. A local one is searched for its next quote as far as a row may reach, a remote one
        only as far as one window, lest all of it be read twice.
      dialect: of the file.
    """

    def __init__(self, file: IO[bytes], dialect: Dialect) -> None:
        self._file = file
        self._dialect = dialect
        self._quote = cast(bytes, dialect.quote)
        self._reach = MAX_ROW_BYTES if isinstance(file, io.FileIO) else _WINDOW
        self._clear = (0, 0)

    def next_row(self, wanted: int) -> int | None:
        """Offset of the first row that begins at or after `wanted`; None where that cannot be told for certain."""
        inside = False
        quote = self._next_quote(wanted - 1)
        if quote is not None:
            buffer = np.frombuffer(self._read(max(quote - 1, wanted - 1), _WINDOW), np.uint8)
            quotes = np.flatnonzero(buffer == self._quote[0])
            delimiter = self._dialect.delimiter
            fits = [quoting_fits(buffer, quotes, self._quote, delimiter, inside=state) for state in (False, True)]
            if fits[0] == fits[1]:
                return None
            inside = fits[1]
        window = min(_WINDOW, 1 << 14)
        while window <= 2 * max(MAX_ROW_BYTES, _WINDOW):
            data = self._read(wanted - 1, window)
            buffer = np.frombuffer(data, np.uint8)
            quotes, newlines = np.flatnonzero(buffer == self._quote[0]), np.flatnonzero(buffer == 10)
            outside = newlines[(np.searchsorted(quotes, newlines) + inside) % 2 == 0]
            if len(outside):
                return wanted + int(outside[0])
            if len(data) < window:
                return wanted - 1 + len(data)
            window *= 4
        return None

    def _read(self, start: int, count: int) -> bytes:
        self._file.seek(start)
        return files.read_fully(self._file, count)

    def _next_quote(self, start: int) -> int | None:
        """Offset of the next quote, None if there is none within reach; what was found clear is not read again."""
        at, end = start, start + self._reach
        if self._clear[0] <= start < self._clear[1]:
            at = self._clear[1]
        while at < end:
            data = self._read(at, min(_WINDOW, end - at))
            if not data:
                break
            place = data.find(self._quote)
            if place >= 0:
                self._clear = (start, at + place)
                return at + place
            at += len(data)
        self._clear = (start, at)
        return None


class CsvWriter(Writer):
    """Writes CSV with a header. Fields are quoted where they need it, nulls are empty and unquoted."""

    extension = "csv"
    libraries = ("polars",)

    def __init__(self, file: IO[bytes], schema: pa.Schema, options: Mapping[str, Any]) -> None:
        super().__init__(file, schema, options)
        self._separator = str(options.get("delimiter") or ",")
        header = schema.empty_table().to_batches() or [pa.RecordBatch.from_pylist([], schema=schema)]
        self.file.write(self._encoded(header[0], header=True))

    def _encoded(self, batch: pa.RecordBatch, *, header: bool = False) -> memoryview:
        import polars as pl

        encoded = io.BytesIO()
        with encoding("CSV"):
            frame = cast(pl.DataFrame, pl.from_arrow(batch))
            frame.write_csv(encoded, include_header=header, separator=self._separator)
        return encoded.getbuffer()

    def write(self, batch: pa.RecordBatch) -> None:
        self.file.write(self._encoded(batch))

    @classmethod
    def output_type(cls, type: pa.DataType) -> pa.DataType:
        """CSV has no lists: they are written as JSON text. Bytes are written as the text that they are."""
        leaf = nested_type(type, lambda inner: polars_type(inner, "CSV"), "CSV")
        return pa.string() if pa.types.is_nested(leaf) else leaf
