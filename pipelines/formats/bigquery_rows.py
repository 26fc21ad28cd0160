"""Turns rows of BigQuery into record batches: fields of structs as columns, and a row as JSON for dead letters.

| in BigQuery | in the JSON of a dead letter |
|---|---|
| INT64, BOOL | number, `true` |
| FLOAT64 | number; "NaN", "Infinity", "-Infinity" |
| NUMERIC, BIGNUMERIC | text of the number, with all its digits |
| STRING, JSON, GEOGRAPHY | text |
| BYTES | text in base64 |
| DATE, DATETIME, TIME, TIMESTAMP | text of ISO 8601 |
| ARRAY | list |
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.base import RowReader
from pipelines.formats.bigquery_types import arrow_type, type_name
from pipelines.formats.readable import readable, readable_type
from pipelines.formats.table import conform
from pipelines.rows.origin import Block, Origin, Positions, RejectedRow

_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "INT64": int,
    "FLOAT64": float,
    "NUMERIC": Decimal,
    "BIGNUMERIC": Decimal,
    "BYTES": lambda value: base64.b64decode(value, validate=True),
    "DATE": date.fromisoformat,
    "DATETIME": datetime.fromisoformat,
    "TIME": time.fromisoformat,
    "TIMESTAMP": datetime.fromisoformat,
}


def leaves(schema: pa.Schema) -> tuple[pa.Schema, list[str]]:
    """Takes structs apart: their fields become columns with dotted names.

    Returns:
      The columns, and those left out because nothing here has their type (ARRAY<STRUCT>, RANGE, INTERVAL), each with
      its type.
    """
    columns: list[pa.Field] = []
    left_out: list[str] = []

    def walk(name: str, type: pa.DataType) -> None:
        if pa.types.is_struct(type):
            for field in type:
                walk(f"{name}.{field.name}", field.type)
        elif type_name(readable_type(type)) is None:
            left_out.append(f"{name} ({type})")
        else:
            columns.append(pa.field(name, readable_type(type)))

    for field in schema:
        walk(field.name, field.type)
    return pa.schema(columns), left_out


def flattened(batch: pa.RecordBatch, names: list[str]) -> pa.RecordBatch:
    """Returns the columns of a batch by their names, fields of structs by their dotted ones."""
    arrays = []
    for name in names:
        top, *path = name.split(".")
        column = batch.column(top)
        arrays.append(pc.struct_field(column, path) if path else column)
    # A batch without columns would forget its number of rows.
    return readable(pa.RecordBatch.from_arrays(arrays, names=names)) if names else batch.select([])


def row_json(row: pa.RecordBatch) -> bytes:
    """Encodes a batch of one row."""
    return json.dumps(
        {name: _to_json(column[0].as_py()) for name, column in zip(row.schema.names, row.columns, strict=True)},
        ensure_ascii=False,
    ).encode("utf-8", "backslashreplace")


def _to_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_json(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def row_of_json(payload: bytes, types: Mapping[str, str]) -> pa.RecordBatch:
    """Decodes what `row_json` made.

    Args:
      payload: the JSON.
      types: BigQuery's names of the columns' types.

    Raises:
      ValueError: it is something else.
    """
    row = json.loads(payload)
    if not isinstance(row, dict):
        raise ValueError("a row of BigQuery is a JSON object")
    arrays = {}
    for name, value in row.items():
        type = arrow_type(types.get(name, ""))
        if type is None:
            raise ValueError(f"column '{name}' has no type in the dead letter's format")
        arrays[name] = pa.array([_from_json(value, types[name])], type)
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _from_json(value: Any, type: str) -> Any:
    if value is None:
        return None
    if type.startswith("ARRAY<"):
        return [_from_json(each, type[6:-1]) for each in value]
    try:
        return _FROM_JSON.get(type, lambda same: same)(value)
    except ArithmeticError as error:
        raise ValueError(f"{value!r} is no {type}") from error


@dataclass
class BigQueryOrigin(Origin):
    """Describes rows of a piece of a table.

    Attributes:
      file: the table, and the number of the piece: <project>.<dataset>.<table>/<piece>.
      first: row number, in the piece, of the first row of the batch.
      batch: the rows with all columns that were read.
    """

    file: str
    first: int
    batch: pa.RecordBatch

    @property
    def format(self) -> dict[str, Any]:  # type: ignore[override]
        """Returns what `replay` needs to decode a payload."""
        return {"type": "bigquery", "columns": {field.name: type_name(field.type) for field in self.batch.schema}}

    @property
    def nbytes(self) -> int:
        return int(self.batch.nbytes)

    def positions(self) -> Positions:
        return np.arange(self.first, self.first + self.batch.num_rows, dtype=np.int64)

    def payload(self, row: int) -> bytes:
        return row_json(self.batch.slice(row, 1))


class BigQueryRowReader(RowReader):
    """Decodes rows of BigQuery out of dead letters."""

    has_own_types = True

    libraries = (
        "google.cloud.bigquery",
        "google.cloud.bigquery_storage_v1.services.big_query_read.transports",
    )

    def format_of(self, context: Any) -> dict[str, Any]:
        return {"type": "bigquery"}

    def replay(self, payload: bytes, context: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        batch = row_of_json(payload, context.get("columns") or {})
        yield Block(BigQueryOrigin(name, 0, batch), conform(batch, self.spec.columns))
