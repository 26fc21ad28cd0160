"""Parses lines of JSON into record batches by pyarrow, and settles the types of lines that disagree on them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.json as pajson

Raw = bytes | memoryview

_LINES_AT_ONCE = 512 << 10


def parse_lines(raw: Raw, schema: pa.Schema) -> pa.RecordBatch:
    """Parses rows that stand on a line each, on all cores. Raises pa.ArrowInvalid."""
    if len(raw) <= 2 * _LINES_AT_ONCE:
        return parse_rows(raw, schema)
    try:
        return parse_rows(raw, schema, _LINES_AT_ONCE)
    except pa.ArrowInvalid as error:
        if "straddling" not in str(error):
            raise
        # A row is longer than that.
        return parse_rows(raw, schema)


def parse_rows(raw: Raw, schema: pa.Schema | None, at_once: int = 0) -> pa.RecordBatch:
    """Parses rows, all at once, or on all cores `at_once` bytes at a time. Raises pa.ArrowInvalid.

    Without a schema the parser takes the types that it finds.
    """
    table = pajson.read_json(
        pa.BufferReader(raw),
        read_options=pajson.ReadOptions(use_threads=at_once > 0, block_size=at_once or len(raw) + 1024),
        parse_options=pajson.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="ignore" if schema else "infer"
        ),
    )
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def parse_lenient(lines: list[bytes]) -> pa.RecordBatch:
    """Parses lines that disagree on types: each column has the type that most of them have, the others are left out."""
    kinds: dict[str, dict[pa.DataType, int]] = {}
    for line in lines:
        try:
            row = parse_rows(line, None)
        except pa.ArrowInvalid:
            continue
        for field in row.schema:
            counts = kinds.setdefault(field.name, {})
            counts[field.type] = counts.get(field.type, 0) + 1
    for counts in kinds.values():
        if pa.int64() in counts and pa.float64() in counts:
            counts[pa.float64()] += counts.pop(pa.int64())
    schema = pa.schema([(name, max(counts, key=lambda t: counts[t])) for name, counts in kinds.items()])
    good = []
    for line in lines:
        try:
            good.append(parse_rows(line, schema).select(schema.names))
        except pa.ArrowInvalid:
            continue
    batches = pa.Table.from_batches(good, schema).combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=schema)
