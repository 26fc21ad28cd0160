"""Reads back the keys of what a stream has written to files, so that a restart does not write it again."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import islice

import orjson
import pyarrow as pa
import pyarrow.csv as pacsv

from pipelines import storage
from pipelines.connectors.files import rolling

_STAMP = re.compile(r"-?(\d{8}T\d{6}Z)-[0-9a-f]{8}\.[a-z]+$")
_LINES = 65_536


def keys(
    prefix: str, extension: str, column: str, seconds: float, window_s: float, delimiter: str | None = None
) -> Iterator[tuple[float, pa.Array]]:
    """Returns keys of the rows that were written in the last seconds: (age in seconds, at most; string keys).

    Args:
      prefix: of the files.
      extension: csv or jsonl.
      column: with the key.
      seconds: how far to look back.
      window_s: of a file.
      delimiter: of CSV; None for a comma.
    """
    now = time.time()
    for file in storage.match(rolling.pattern(prefix, extension)):
        found = _STAMP.search(file.path)
        if found is None:
            continue
        begun = datetime.strptime(found[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
        if begun + window_s < now - seconds:
            continue
        age_s = max(0.0, now - begun - window_s)
        read = _of_csv(file.path, column, delimiter) if extension == "csv" else _of_json(file.path, column)
        yield from ((age_s, each) for each in read)


def _of_csv(path: str, column: str, delimiter: str | None) -> Iterator[pa.Array]:
    with storage.open_input(path) as file:
        reader = pacsv.open_csv(
            file,
            read_options=pacsv.ReadOptions(block_size=16 << 20),
            parse_options=pacsv.ParseOptions(delimiter=delimiter or ",", newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(include_columns=[column], column_types={column: pa.string()}),
        )
        for batch in reader:
            yield batch[0]


def _of_json(path: str, column: str) -> Iterator[pa.Array]:
    with storage.open_input(path) as raw:
        lines = io.BufferedReader(raw) if isinstance(raw, io.RawIOBase) else raw
        while some := list(islice(lines, _LINES)):
            yield pa.array([None if (key := orjson.loads(line).get(column)) is None else str(key) for line in some])
