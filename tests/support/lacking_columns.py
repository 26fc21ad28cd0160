"""Makes files that lack columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fastavro
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq

from tests.support import ledger
from tests.support.ledger import (
    AVRO_SCHEMA,
    Row,
    write_rows,
)


def write_without(path: Path, format: str, rows: Sequence[Row], *names: str) -> None:
    """A file that lacks columns."""
    schema = pa.schema([field for field in ledger.SCHEMA if field.name not in names])
    kept = [{key: value for key, value in row.items() if key not in names} for row in rows]
    if format == "parquet":
        pq.write_table(ledger.table(kept, schema), path)
    elif format == "orc":
        orc.write_table(ledger.table(kept, schema), path)
    elif format == "avro":
        with path.open("wb") as file:
            fields = [field for field in AVRO_SCHEMA["fields"] if field["name"] not in names]
            fastavro.writer(file, {**AVRO_SCHEMA, "fields": fields}, kept)
    elif format == "csv":
        lines = (ledger.csv_row(row, None, schema.names) for row in kept)
        path.write_bytes(ledger.lines(lines, ",".join(schema.names).encode()))
    else:
        write_rows(path, format, kept)
