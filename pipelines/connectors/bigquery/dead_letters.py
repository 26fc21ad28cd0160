"""Writes a stream's dead letters as rows of a BigQuery table, whose columns are the keys of dead letters in files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.config.bigquery import BigQueryDeadLetters
from pipelines.connectors.bigquery.appender import Appender
from pipelines.connectors.bigquery.tables import Table, ready_table
from pipelines.dead_letters.buffered import BufferedWriter
from pipelines.dead_letters.place import DeadLetterPlace, DeadLetterWriter
from pipelines.rows.origin import DeadLetter

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("payload", pa.binary()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int64()),
        ("model", pa.string()),
        ("source", pa.string()),
        ("format", pa.string()),
        ("payload_truncated", pa.bool_()),
    ]
)
"""`format` is text of JSON."""


@dataclass(frozen=True)
class BigQueryDeadLetterPlace(DeadLetterPlace):
    """Puts dead letters into a table of BigQuery.

    Attributes:
      config: which one.
    """

    config: BigQueryDeadLetters

    def check(self) -> None:
        ready_table(Table.parse(self.config.table), SCHEMA, "dead_letters", self.config.create)

    def open(self) -> DeadLetterWriter:
        return _BigQueryWriter(Table.parse(self.config.table))

    def describe(self) -> str:
        return f"table {self.config.table}"


class _BigQueryWriter(BufferedWriter[Appender]):
    def __init__(self, table: Table) -> None:
        super().__init__()
        self._table = table

    def connected(self) -> Appender:
        return Appender(self._table, SCHEMA)

    def send(self, service: Appender, dead_letters: Sequence[DeadLetter]) -> dict[int, str]:
        arrays = [
            pa.array([_value(dead_letter, field) for dead_letter in dead_letters], field.type) for field in SCHEMA
        ]
        return service.append(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))


def _value(dead_letter: DeadLetter, field: pa.Field) -> object:
    value: object = getattr(dead_letter, field.name)
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    # What is no text in a message of some error, say half of a pair of surrogates.
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
