"""Makes tables as files that people have, written and read with other libraries than the project's."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.ledger import example
from tests.zoo.models import Table, tensorflow


def rows_of(table: Table) -> list[dict[str, Any]]:
    """Returns a table's rows."""
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def write(table: Table, format: str, folder: Path) -> Path:
    """Writes a table to a file in a folder; gives what `--source` has to say."""
    folder.mkdir()
    path = folder / f"data.{'tfrecord' if format == 'tfrecord_raw' else format}"
    if format == "csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(table)
            for row in zip(*table.values(), strict=True):
                writer.writerow([json.dumps(value) if isinstance(value, list) else value for value in row])
    elif format == "json":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(table)), "utf-8")
    elif format == "parquet":
        pq.write_table(pa.table(table), path)
    elif format == "tfrecord":
        _write_records(path, [_example(row) for row in rows_of(table)])
    elif format == "tfrecord_raw":
        _write_records(path, table["bytes"])
    elif format == "text":
        path = folder / "data.txt"
        path.write_text("".join(line + "\n" for line in table["line"]), "utf-8")
    elif format == "bytes":
        for number, content in enumerate(table["bytes"]):
            (folder / f"{number:03d}.jpg").write_bytes(content)
        path = folder
    return path


def _write_records(path: Path, records: Sequence[bytes]) -> None:
    with tensorflow().io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def _example(row: dict[str, Any]) -> bytes:
    tf = tensorflow()
    lists = {name: value for name, value in row.items() if isinstance(value, list)}
    made = tf.train.Example.FromString(example({name: value for name, value in row.items() if name not in lists}))
    for name, values in lists.items():
        made.features.feature[name].float_list.value.extend(values)
    return bytes(made.SerializeToString())


def read(pattern: Path, format: str) -> list[dict[str, Any]]:
    """Reads all rows of an output's shards, in the order of the shards."""
    found: list[dict[str, Any]] = []
    for path in sorted(pattern.parent.glob(f"{pattern.name}-*")):
        if format == "csv":
            with path.open(newline="", encoding="utf-8") as stream:
                found += csv.DictReader(stream)
        elif format == "json":
            found += [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        elif format == "parquet":
            found += pq.read_table(path).to_pylist()
        else:
            for record in tensorflow().data.TFRecordDataset(str(path)):
                features = tensorflow().train.Example.FromString(record.numpy()).features.feature
                found.append({name: _values_of(feature) for name, feature in features.items()})
    return found


def _values_of(feature: Any) -> Any:
    values = list(getattr(feature, feature.WhichOneof("kind")).value)
    values = [value.decode() if isinstance(value, bytes) else value for value in values]
    return values[0] if len(values) == 1 else values
