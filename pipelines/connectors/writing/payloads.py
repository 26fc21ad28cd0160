"""Makes messages of rows: one object of JSON each, as the JSON file sink writes them."""

from __future__ import annotations

import io

import pyarrow as pa

from pipelines.formats.json import JsonWriter


def payloads(batch: pa.RecordBatch) -> list[bytes]:
    """Returns the rows, each as one object of JSON without a line end; what JSON cannot hold (NaN, infinities)
    is null.
    """
    file = io.BytesIO()
    JsonWriter(file, batch.schema, {}).write(batch)
    # No string of JSON holds a line end: it is escaped.
    return file.getvalue().split(b"\n")[: batch.num_rows]
