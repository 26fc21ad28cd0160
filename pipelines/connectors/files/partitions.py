"""Reads columns from the names of folders: `year=2001/month=2/part.parquet`.

| in a path | is |
|---|---|
| `year=2001` | a value of column `year`: an integer if it is one in all files, else text |
| `zip=02134` | text: as an integer it would lose its zero |
| `city=New%20York` | `New York` |
| `year=__HIVE_DEFAULT_PARTITION__` | null |

Where a file has a column of this name too, the folder's value counts, as in Spark.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_to_bytes

import pyarrow as pa

from pipelines.formats.base import RowReader, Split
from pipelines.rows.origin import Block, RejectedRow
from pipelines.storage import FileInfo, is_remote

Partition = tuple[tuple[str, str | None], ...]
"""Columns and values of a folder."""

PARTITION = "partition"
"""Of the format of dead letters: the values of their row's folder, {column: text or null}."""

_NULL = "__HIVE_DEFAULT_PARTITION__"
_FOLDER = re.compile(r"[^=]+=[^/]*", re.DOTALL)
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


def is_partition(name: str) -> bool:
    """Tells whether a folder's name is a column and its value."""
    return _FOLDER.fullmatch(name) is not None


@functools.lru_cache(1024)
def partition_of(folder: str, base: str) -> Partition:
    """Gives the columns that the names of folders hold.

    Args:
      folder: that holds files.
      base: the folder above it where the source begins; what is in front of it says nothing.

    >>> partition_of("/data/year=2001/city=New%20York", "/data")
    (('year', '2001'), ('city', 'New York'))
    """
    names = folder[len(base) :].strip("/").split("/")
    while names and not is_partition(names[-1]):
        names.pop()
    found: dict[str, str | None] = {}
    while names and is_partition(names[-1]):
        name, _, value = names.pop().partition("=")
        found.setdefault(_decoded(name, folder), None if value == _NULL else _decoded(value, folder))
    return tuple(reversed(found.items()))


def partition_fields(found: Iterable[FileInfo]) -> dict[str, pa.Field]:
    """Gives the columns of the folders of all files, with types that hold every value."""
    values: dict[str, set[str | None]] = {}
    for partition in {file.partition for file in found}:
        for name, value in partition:
            values.setdefault(name, set()).add(value)
    return {name: pa.field(name, _type(texts)) for name, texts in values.items()}


class PartitionedReader:
    """Reads rows of files whose folders hold columns; other files as their reader does.

    Args:
      reader: of the files' format.
    """

    def __init__(self, reader: RowReader) -> None:
        self._reader = reader
        self._without: dict[frozenset[str], RowReader] = {}

    def read(self, split: Split) -> Iterator[Block | RejectedRow]:
        """Reads a file as its reader does, with the values that its path holds as columns."""
        reader: Any = self._for(dict(split.partition))
        return self._completed(reader.read(split), dict(split.partition))

    def replay(self, payload: bytes, format: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        """Reads a dead letter again as its reader does. Raises ValueError if a value does not have the type that its
        column has now.
        """
        partition = dict(format.get(PARTITION) or {})
        return self._completed(self._for(partition).replay(payload, format, name), partition)

    def _for(self, partition: Mapping[str, str | None]) -> RowReader:
        """The reader of the columns that are in the files."""
        spec = self._reader.spec
        names = frozenset(partition) & frozenset(spec.columns.names)
        if not names:
            return self._reader
        if names not in self._without:
            columns = pa.schema([field for field in spec.columns if field.name not in names])
            self._without[names] = type(self._reader)(replace(spec, columns=columns))
        return self._without[names]

    def _completed(
        self, pieces: Iterator[Block | RejectedRow], partition: dict[str, str | None]
    ) -> Iterator[Block | RejectedRow]:
        if not partition:
            yield from pieces
            return
        spec = self._reader.spec
        asked = {
            name: _scalar(text, spec.columns.field(name))
            for name, text in partition.items()
            if name in spec.columns.names
        }
        for piece in pieces:
            if isinstance(piece, RejectedRow):
                yield replace(piece, key=partition[spec.key]) if spec.key in partition else piece
                continue
            rows = piece.batch.num_rows
            columns = [
                _repeated(asked[name], rows)
                if name in asked
                else piece.batch.column(piece.batch.schema.names.index(name))
                for name in spec.columns.names
            ]
            piece.origin.format = with_partition(piece.origin.format, partition)
            yield Block(
                piece.origin, pa.RecordBatch.from_arrays(columns, names=spec.columns.names) if columns else piece.batch
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_without": {}}


def with_columns(batch: pa.RecordBatch, partition: Partition, schema: pa.Schema) -> pa.RecordBatch:
    """Adds the columns of a file's folder to rows of it; `schema` has their types."""
    for name, text in partition:
        values = _repeated(_scalar(text, schema.field(name)), batch.num_rows)
        place = batch.schema.get_field_index(name)
        columns, names = list(batch.columns), list(batch.schema.names)
        if place < 0:
            columns, names = [*columns, values], [*names, name]
        else:
            columns[place] = values
        batch = pa.RecordBatch.from_arrays(columns, names)
    return batch


def with_partition(format: dict[str, Any], partition: Partition | Mapping[str, str | None]) -> dict[str, Any]:
    """Gives the format of dead letters of rows of a folder."""
    return {**format, PARTITION: dict(partition)} if partition else format


def _decoded(text: str, folder: str) -> str:
    raw = text.encode() if is_remote(folder) else os.fsencode(text)
    return unquote_to_bytes(raw).decode("utf-8", "backslashreplace")


def _type(texts: set[str | None]) -> pa.DataType:
    given = [text for text in texts if text is not None]
    integers = all(_INTEGER.fullmatch(text) and -(1 << 63) <= int(text) < 1 << 63 for text in given)
    return pa.int64() if given and integers else pa.string()


def _scalar(text: str | None, field: pa.Field) -> pa.Array:
    if not pa.types.is_dictionary(field.type):
        return pa.array([text], pa.string()).cast(field.type)
    # Not a dictionary with a null in it: those cannot be joined with others.
    return pa.array([text], pa.string()).cast(field.type.value_type).dictionary_encode().cast(field.type)


def _repeated(value: pa.Array, rows: int) -> pa.Array:
    return value.take(pa.repeat(pa.scalar(0, pa.int64()), rows))
