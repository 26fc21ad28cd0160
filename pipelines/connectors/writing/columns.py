"""Finds the keys of rows that are written."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.coercion import is_bytes
from pipelines.formats.output_values import to_output
from pipelines.rows.origin import Origin, Positions


def keys_of(key_column: str | None, origin: Origin, batch: pa.RecordBatch, rows: Positions) -> pa.Array:
    """Returns the key column of a batch; where it is missing, and where there is none, the origin's names of
    its rows.
    """
    given = batch[key_column] if key_column else None
    if given is not None and not given.null_count:
        return given
    named = origin.names(rows)
    if given is None:
        return named
    if is_bytes(given.type):
        return pc.coalesce(to_output(given, pa.large_binary()), named.cast(pa.large_binary()))
    return pc.coalesce(to_output(given, pa.string()), named)
