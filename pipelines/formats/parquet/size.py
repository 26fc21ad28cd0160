"""Computes how many rows of a Parquet row group fit into memory, and which row groups are not to be read at all.

What a row group takes in its file says little about what it becomes: one entry of a dictionary may stand for a million
values, and a run of a few bytes for a billion. So the longest entry of each dictionary is looked up before rows are
decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.formats.base import FormatError
from pipelines.formats.parquet.dictionary import MAX_PAGE_BYTES, longest_entry
from pipelines.formats.table import BATCH_BYTES, BATCH_ROWS, EXPANDED_BYTES, expands

Open = Callable[[frozenset[str]], AbstractContextManager[pq.ParquetFile]]
"""Opens the file, with columns that are to be read as dictionaries."""

Read = Callable[[int, int], bytes]
"""The bytes of the file from one offset to another."""

MAX_PAGES_BYTES = 256 << 20
"""Bytes to which strongly compressed columns of a row group may be unpacked: a page is unpacked as a whole."""

MAX_PAGE_RATIO = 32
"""Times that a column may expand by being unpacked before it counts as strongly compressed."""

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_LEVEL_BYTES = 5
"""Bytes for each value of a nested column, besides the value."""


@dataclass(frozen=True)
class ReadingPlan:
    """Describes how to read a row group.

    Attributes:
      rows: rows at a time.
      dictionaries: plain columns that are to be read as dictionaries, and written out in small slices.
    """

    rows: int
    dictionaries: frozenset[str]


@dataclass(frozen=True)
class _Column:
    """One leaf column of a row group.

    Attributes:
      path: its path in the schema.
      top: name of the column of the table that it belongs to.
      nested: whether a row may have several values.
      values: number of values.
      width: bytes of a value; 0 where they differ.
      stored: bytes in the file.
      unpacked: bytes of its pages, unpacked.
      encodings: how values are encoded.
      codec: how pages are compressed.
      dictionary: where its dictionary page begins and ends in the file.
    """

    path: str
    top: str
    nested: bool
    values: int
    width: int
    stored: int
    unpacked: int
    encodings: frozenset[str]
    codec: str
    dictionary: tuple[int, int]

    @property
    def repeats(self) -> bool:
        """Tells whether a value of any length may be stored once and stand in many rows."""
        return not self.width and any("DICTIONARY" in name for name in self.encodings)


def stored_bytes(group: pq.RowGroupMetaData) -> int:
    """Returns the bytes of a row group in the file."""
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))


def reading_plan(
    file: pq.ParquetFile, group: int, names: list[str], as_dictionaries: frozenset[str], open: Open, read: Read | None
) -> ReadingPlan:
    """Decides how to read a row group.

    Args:
      file: the open file.
      group: number of the row group.
      names: columns wanted.
      as_dictionaries: those of them that are read as dictionaries anyway.
      open: opens the file once more.
      read: reads a range of its bytes; None where each range is a request of its own.

    Raises:
      FormatError: the row group becomes too large for its bytes in the file.
    """
    metadata = file.metadata.row_group(group)
    columns = _columns(file, metadata, frozenset(names))
    rows = max(metadata.num_rows, 1)
    _refuse_bombs(columns, stored_bytes(metadata))
    longest = _longest_values(columns, rows, group, as_dictionaries, open, read)
    fixed, wide = 0, []
    for column in columns:
        if column.width:
            fixed += column.values * (column.width + (_LEVEL_BYTES if column.nested else 0))
        elif column.path in longest:
            most = column.values * (longest[column.path] + 4)
            if column.nested:
                fixed += most
            elif most // rows * min(rows, BATCH_ROWS) > BATCH_BYTES:
                wide.append(column.top)
                fixed += 4 * column.values
            else:
                fixed += most
        elif "DELTA_BYTE_ARRAY" in column.encodings:
            fixed += column.values * min(column.unpacked, BATCH_BYTES)
        else:
            fixed += column.unpacked + 4 * column.values
    return ReadingPlan(max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(fixed, 1))), frozenset(wide))


def _columns(file: pq.ParquetFile, group: pq.RowGroupMetaData, names: frozenset[str]) -> list[_Column]:
    found = []
    for index in range(group.num_columns):
        chunk, leaf = group.column(index), file.schema.column(index)
        # A name may hold dots itself.
        path = chunk.path_in_schema
        top = path if path in names else path.split(".", 1)[0]
        if top not in names:
            continue
        width = leaf.length if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS.get(chunk.physical_type, 0)
        found.append(
            _Column(
                path,
                top,
                leaf.max_repetition_level > 0,
                chunk.num_values,
                max(width, 0),
                chunk.total_compressed_size,
                chunk.total_uncompressed_size,
                frozenset(chunk.encodings),
                chunk.compression,
                (chunk.dictionary_page_offset or 0, chunk.data_page_offset),
            )
        )
    return found


def _refuse_bombs(columns: list[_Column], stored: int) -> None:
    packed = sum(c.unpacked for c in columns if c.unpacked > MAX_PAGE_RATIO * c.stored)
    if packed > MAX_PAGES_BYTES:
        raise FormatError(
            f"its columns are {packed:,} bytes, packed to less than 1/{MAX_PAGE_RATIO} of that; "
            f"at most {MAX_PAGES_BYTES:,} bytes can be packed so: write it with smaller row groups"
        )
    for column in columns:
        decoded = column.values * (max(column.width, 1) + _LEVEL_BYTES)
        if column.nested and expands(decoded, stored):
            raise FormatError(
                f'column "{column.path}" has {column.values:,} values in {column.stored:,} bytes; lists may take '
                f"{EXPANDED_BYTES:,} bytes where they are so much smaller in the file: write it with smaller row groups"
            )


def _longest_values(
    columns: list[_Column], rows: int, group: int, as_dictionaries: frozenset[str], open: Open, read: Read | None
) -> dict[str, int]:
    """Bytes of the longest entry of the dictionary of each column where that may matter, by path."""
    at_once = min(rows, BATCH_ROWS)
    unclear = [
        column
        for column in columns
        if column.repeats
        and column.top not in as_dictionaries
        and column.unpacked * column.values // rows * at_once > BATCH_BYTES
    ]
    known = {column.path: _looked_up(column, read) for column in unclear}
    unclear = [column for column in unclear if known[column.path] is None]
    found = {path: length for path, length in known.items() if length is not None}
    if not unclear:
        return found
    with open(frozenset(column.path for column in unclear)) as file:
        # The first row brings the whole dictionary.
        first = next(file.iter_batches(1, [group], [column.path for column in unclear], use_threads=False), None)
    if first is None:
        return found
    longest = {}
    for name, array in zip(first.schema.names, first.columns, strict=True):
        if dictionaries := list(_dictionaries(array)):
            longest[name] = max(map(_longest, dictionaries))
    return found | {column.path: longest.get(column.top, column.unpacked) for column in unclear}


def _looked_up(column: _Column, read: Read | None) -> int | None:
    start, end = column.dictionary
    if read is None or not 0 < end - start <= MAX_PAGE_BYTES:
        return None
    return longest_entry(read(start, end), column.codec)


def _dictionaries(array: pa.Array) -> Iterator[pa.Array]:
    """The dictionaries in an array, however deep."""
    if pa.types.is_dictionary(array.type):
        yield array.dictionary
    elif pa.types.is_struct(array.type):
        for index in range(array.type.num_fields):
            yield from _dictionaries(array.field(index))
    elif pa.types.is_map(array.type):
        yield from _dictionaries(array.keys)
        yield from _dictionaries(array.items)
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        yield from _dictionaries(array.values)


def _longest(dictionary: pa.Array) -> int:
    return int(pc.max(pc.binary_length(dictionary)).as_py() or 0)
