"""Detects what a file is by its name and first bytes: its format; of text its encoding, delimiter and quotes.

Only a proposal is made of it, that a person sees in a config: a run never guesses.

| a name | format |
|---|---|
| `x.csv`, `x.tsv`, `x.tab`, `x.psv` | csv |
| `x.txt`, `x.text`, `x.dat`, `x.log` | csv, if its lines have a delimiter and as many fields each; else text |
| `x.jpg`, `x.png`, ... | bytes |
| `x.csv.gz`, `x.csv-00000-of-00012`, `x-00000-of-00012.csv`, `x.csv-00000-of-00012.gz` | csv |
| `x-00000-of-00012`, `x` | what its first bytes say |
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from model.specs import Signature
from pipelines.formats import WRITERS, content, reader_class
from pipelines.formats.base import FormatError
from pipelines.formats.text_blocks import compression_of, first_block, without_shard
from pipelines.formats.tfrecord.frames import HEADER_BYTES, next_length
from pipelines.storage import read_range

IMAGES = ("bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp")
_EXTENSIONS = {
    "csv": "csv",
    "tsv": "csv",
    "tab": "csv",
    "psv": "csv",
    "json": "json",
    "jsonl": "json",
    "ndjson": "json",
    "parquet": "parquet",
    "pq": "parquet",
    "avro": "avro",
    "orc": "orc",
    "tfrecord": "tfrecord",
    "tfrecords": "tfrecord",
} | dict.fromkeys(IMAGES, "bytes")
_TEXT = ("txt", "text", "dat", "log")
"""Extensions of any text: tables, or plain lines."""

DELIMITERS = ",;\t|"
_FILES_AT_ONCE = 32
"""Files that are given to a model at a time: decoded images are large."""

SAMPLE_ROWS = 1000
"""First rows that a proposal is made of."""
_ROWS = 200
"""Rows by which a delimiter is found."""
_MOST_ODD = 0.1
"""The share of rows that may have another number of fields than the header, for a delimiter to be believed."""
_BOMS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_SAMPLE_BYTES = 1 << 20
_COMMA, _POINT = re.compile(r"[-+]?\d+,\d+"), re.compile(r"[-+]?\d+\.\d+")
_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}


@dataclass
class Detected:
    """Describes what a file seems to be.

    Attributes:
      format: of the file.
      options: settings of `source` that it needs, such as `delimiter`.
      notes: what was found, or has to be decided, one line each.
    """

    format: str
    options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def extension_of(path: str) -> str:
    """Returns the extension of a file's name in lower case, compression and the number of a shard aside.

    >>> extension_of("a/x.csv-00000-of-00012.gz"), extension_of("x-00000-of-00012.CSV"), extension_of("x")
    ('csv', 'csv', '')
    """
    base = path.rpartition("/")[2].lower()
    for _ in range(2):
        base = without_shard(base)
        if compression_of(base):
            base = os.path.splitext(base)[0]
    return os.path.splitext(base)[1].removeprefix(".")


def format_of(path: str) -> str | None:
    """Returns the format that a file's name stands for; None if its content has to tell."""
    return _EXTENSIONS.get(extension_of(path))


def look_at(path: str, format: str | None = None) -> Detected:
    """Tells what a file is. Raises FormatError if it is nothing that can be read.

    Args:
      path: of the file.
      format: what it is, if that is known.
    """
    found = Detected(format or format_of(path) or _by_content(path))
    if found.format in ("csv", "json", "text", ""):
        raw = first_block(path, _SAMPLE_BYTES)
        encoding = _encoding_of(raw, path)
        text = raw.decode(encoding or "utf-8-sig", "replace")
        if len(raw) == _SAMPLE_BYTES:
            text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
        if encoding is not None:
            found.options["encoding"] = encoding
            found.notes.append(f"assumed: the text is {encoding}, as it is not UTF-8 (source.encoding)")
        options = {} if found.format in ("json", "text") else _dialect(text)
        if not found.format:
            found.format = "csv" if options and len(text.splitlines()) > 1 else "text"
        if found.format == "csv":
            found.options |= {name: value for name, value in options.items() if (name, value) != ("delimiter", ",")}
            if "delimiter" in found.options:
                found.notes.append(f"assumed: the delimiter is {_NAMES[found.options['delimiter']]}")
            if "quote" in found.options:
                found.notes.append("assumed: fields are quoted with ' (source.quote)")
            if "trim" in found.options:
                found.notes.append("assumed: spaces around fields mean nothing (source.trim)")
            if _begins_with_data(text, options):
                found.notes.append(
                    "decide: the first line looks like a row, not like the names of columns; if it is one, name the "
                    "columns in source.column_names"
                )
            if "decimal" in found.options:
                found.notes.append("assumed: numbers have a decimal comma (source.decimal)")
    return found


def sample(path: str, found: Detected, signature: Signature) -> pa.RecordBatch:
    """Returns the first rows of a file, as what it seems to be. A row's one value has the name of the input that it
    feeds.

    Raises FormatError.

    Args:
      path: of the file.
      found: what it seems to be; TFRecords without tf.Examples, or for a model that takes none, become raw ones.
      signature: of the model.
    """
    reads = found.format
    if reads == "tfrecord":
        try:
            batch = reader_class(reads).sample(path, found.options, SAMPLE_ROWS)
            wanted = set(content.fed(signature, "tfrecord_raw"))
            parses = signature.examples_input is not None
            if parses or len(signature.inputs) > 1 or not wanted or wanted <= set(batch.schema.names):
                return batch
        except FormatError as error:
            if "tf.Example" not in str(error):
                raise
        if "record" not in found.options:
            found.notes.append("assumed: the model takes whole records (source.record)")
        reads, found.options["record"] = "tfrecord_raw", "raw"
    batch = reader_class(reads).sample(path, found.options, SAMPLE_ROWS)
    names = {column: name for name, column in content.fed(signature, reads).items()}
    return batch.rename_columns([names.get(name, name) for name in batch.schema.names])


def with_points(sample: pa.RecordBatch, found: Detected) -> pa.RecordBatch:
    """Returns a sample whose numbers have decimal points, where those of the file have commas."""
    if found.options.get("decimal") != ",":
        return sample
    columns = [
        pc.replace_substring_regex(column, r"^(\s*[-+]?[0-9]*),([0-9]+\s*)$", r"\1.\2")
        if pa.types.is_string(column.type)
        else column
        for column in sample.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=sample.schema.names)


def complete(config: dict[str, Any], found: Detected) -> list[str]:
    """Adds to a config what was found of its files; gives what a person should know, one line each."""
    config["source"] |= found.options
    notes = list(found.notes)
    if found.format not in WRITERS or found.options.get("record") == "raw":
        config["output"]["format"] = "json"
    if found.format == "bytes":
        config["batching"]["max_rows"] = _FILES_AT_ONCE
        notes.append(f"assumed: the model takes {_FILES_AT_ONCE} files at a time (batching.max_rows)")
    return notes


def _by_content(path: str) -> str:
    """The format that a file's first bytes show; empty for text that has to be looked at."""
    head = read_range(path, 0, 64)
    for magic, format in ((b"PAR1", "parquet"), (b"Obj\x01", "avro"), (b"ORC", "orc")):
        if head.startswith(magic):
            return format
    if head.startswith(b"\x1f\x8b") and not compression_of(path):
        # TFRecord is the only format that is compressed whatever its name is.
        return "tfrecord"
    if len(head) >= HEADER_BYTES and next_length(head, 0) is not None:
        return "tfrecord"
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8")):
        return "bytes"
    text = first_block(path, _SAMPLE_BYTES)
    if text.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return "json"
    if b"\0" in text and not text.startswith(tuple(_BOMS)):
        raise FormatError(f"the format of {path} shows neither in its name nor in its content; give --format")
    if text and extension_of(path) not in ("", *_TEXT):
        raise FormatError(f"the format of {path} does not show in its name; give --format")
    return ""


def _encoding_of(raw: bytes, path: str) -> str | None:
    """The encoding of text; None for UTF-8."""
    if raw.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        raise FormatError(f"{path} is UTF-32; convert it (iconv -f UTF-32 -t UTF-8)")
    for bom, encoding in _BOMS.items():
        if raw.startswith(bom):
            return None if encoding == "utf-8" else encoding
    text = raw.decode("utf-8", "replace")
    strange = text[:-1].count("\ufffd") - raw.count("\ufffd".encode())
    if strange <= sum(not char.isascii() for char in text) - text.count("\ufffd"):
        return None
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _dialect(text: str) -> dict[str, Any]:
    """The settings of a table of text: nothing where there is no delimiter."""
    best: tuple[float, int] = (1 - _MOST_ODD, 1)
    found: dict[str, Any] = {}
    for quote in '"', "'":
        for delimiter in DELIMITERS:
            rows = list(_rows(text, delimiter, quote))
            if not rows or len(rows[0]) < 2:
                continue
            share = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
            if (share, len(rows[0])) > best and (quote == '"' or _is_quoted(text, delimiter)):
                best, found = (share, len(rows[0])), {"delimiter": delimiter}
                found |= {"quote": quote} if quote == "'" else {}
        if quote == '"' and found and _is_quoted(text, found["delimiter"]):
            found["quote"] = "'"
    if found:
        rows = list(_rows(text, found["delimiter"], found.get("quote", '"')))
        found |= {"trim": True} if _is_padded(rows) else {}
        found |= {"decimal": ","} if _has_commas(rows) else {}
    return found


def _rows(text: str, delimiter: str, quote: str) -> Iterator[list[str]]:
    """The first rows of a table of text, as far as they can be read."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote)
    try:
        for row in reader:
            if row:
                yield row
            if reader.line_num >= _ROWS:
                return
    except csv.Error:
        return


def _is_quoted(text: str, delimiter: str) -> bool:
    """Whether fields are quoted with ', and none with \"."""
    head = text[: 1 << 16]
    field = rf"(?:^|[{re.escape(delimiter)}])%s(?:[^%s\r\n]|%s%s)*%s(?=[{re.escape(delimiter)}]|$)"
    counts = [len(re.findall(field % ((quote,) * 5), head, re.MULTILINE)) for quote in ("'", '"')]
    return counts[0] > 1 and not counts[1]


def _is_padded(rows: Sequence[Sequence[str]]) -> bool:
    """Whether spaces stand around names of columns, or around most values of a column."""
    if any(name != name.strip() for name in rows[0]):
        return True
    for column in zip(*(row for row in rows[1:] if len(row) == len(rows[0])), strict=True):
        values = [value for value in column if value]
        if 2 * sum(value != value.strip() for value in values) > len(values) > 0:
            return True
    return False


def _has_commas(rows: Sequence[Sequence[str]]) -> bool:
    """Whether numbers have a decimal comma, and none a point."""
    cells = [cell.strip() for row in rows[1:] for cell in row]
    return any(map(_COMMA.fullmatch, cells)) and not any(map(_POINT.fullmatch, cells))


def _begins_with_data(text: str, options: Mapping[str, Any]) -> bool:
    """Whether the first line has a number where the name of a column should be."""
    first = next(_rows(text, options.get("delimiter", ","), options.get("quote", '"')), [])
    return any(re.fullmatch(r"\s*[-+]?\d+([.,]\d+)?\s*", cell) for cell in first)


def wrong_delimiter(names: Sequence[str], options: Mapping[str, Any]) -> str | None:
    """Returns what is evidently wrong with the delimiter of a CSV file whose header has one column; None if
    nothing is.
    """
    if len(names) != 1 or options.get("column_names"):
        return None
    counts = {char: names[0].count(char) for char in DELIMITERS if char != (options.get("delimiter") or ",")}
    most = max(counts, key=lambda char: counts[char])
    if not counts[most]:
        return None
    shown = names[0] if len(names[0]) <= 80 else names[0][:77] + "..."
    return (
        f"source.delimiter: the header has one column, {shown!r}: is the delimiter {_NAMES[most]}? Then set "
        f'source.delimiter to "{most if most != chr(9) else chr(92) + "t"}"'
    )
