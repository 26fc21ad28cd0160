"""Columns, inputs and outputs may have any name: nothing of ours lives among the columns of a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from tests.support import ledger
from tests.support.commands import Command, save

NAMES = ["__error", "__row", "inference.failures", "inference.rows", "rows", "error"]
AVRO_NAMES = [name for name in NAMES if "." not in name]
ROWS = 60
BAD = {7, 30}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose input and output have such names, and that fails on a whole call if one value is negative."""
    import tensorflow as tf

    class Named(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "value")])
        def __call__(self, value: Any) -> dict[str, Any]:
            with tf.control_dependencies([tf.debugging.assert_non_negative(value, "negative")]):
                return {"__doubled": value * 2, "__row_out": value}

    return save(Named(), tmp_path_factory.mktemp("named"))


def rows_with(names: list[str]) -> list[dict[str, Any]]:
    """Rows in which one value cannot be taken, and one is missing."""
    return [
        {**{name: f"{name}-{row}" for name in names}, "value": -1.0 if row == 7 else None if row == 30 else float(row)}
        for row in range(ROWS)
    ]


def write(folder: Path, format: str, rows: list[dict[str, Any]]) -> str:
    path = folder / f"in.{format}"
    table = pa.Table.from_pylist(rows, pa.schema([*((name, pa.string()) for name in rows[0] if name != "value"),
                                                  ("value", pa.float64())]))  # fmt: skip
    if format == "parquet":
        pq.write_table(table.replace_schema_metadata({"inference.failures": "[]", "inference.rows": "x"}), path)
    elif format == "orc":
        orc.write_table(table, path)
    elif format == "avro":
        fields = [{"name": n, "type": ["null", "double" if n == "value" else "string"]} for n in rows[0]]
        with path.open("wb") as file:
            fastavro.writer(file, fastavro.parse_schema({"type": "record", "name": "r", "fields": fields}), rows)
    elif format == "csv":
        lines = [",".join(rows[0]), *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def wanted(rows: list[dict[str, Any]], columns: list[str]) -> list[dict[str, str]]:
    doubled = [{**row, "__doubled": None if row["value"] is None else 2 * row["value"]} for row in rows]
    return [{name: str(row[name]) for name in columns} for index, row in enumerate(doubled) if index not in BAD]


def config(folder: Path, model: str, source: dict[str, Any], columns: list[str], key: str) -> str:
    made = {
        "name": "names",
        "source": {**source, "key": key},
        "model": {"type": "saved_model", "path": model},
        "output": {"type": "file", "format": "csv", "path": str(folder / "out" / "p"), "columns": columns, "show": 1000}
        if source["type"] != "file"
        else {"type": "file", "format": "csv", "path": str(folder / "out" / "p"), "columns": columns},
        "dead_letters": {"path": str(folder / "out" / "dead"), "max_fraction": 0.5},
    }
    (folder / "config.json").write_text(json.dumps(made))
    return str(folder / "config.json")


@pytest.mark.parametrize("key", ["__row", "__error"])
@pytest.mark.parametrize("format", ["csv", "json", "parquet", "orc", "avro"])
def test_files(command: Command, tmp_path: Path, model: str, format: str, key: str) -> None:
    names = AVRO_NAMES if format == "avro" else NAMES
    rows = rows_with(names)
    source = {"type": "file", "format": format, "path": write(tmp_path, format, rows)}
    columns = [*names, "__doubled"]
    result = command("batch", "--config", config(tmp_path, model, source, columns, key), "--json")
    assert result.code == 0, result
    books = ledger.books_of(tmp_path)
    assert sorted(books.output, key=str) == sorted(wanted(rows, columns), key=str)
    assert {dead_letter["key"]: dead_letter["stage"] for dead_letter in books.dead_letters} == {
        f"{key}-7": "predict",
        f"{key}-30": "coerce",
    }


def test_streams(command: Command, tmp_path: Path, model: str) -> None:
    rows = rows_with(NAMES)
    source = {
        "type": "simulated", "format": "json", "path": write(tmp_path, "json", rows), "rate": 1_000, "messages": ROWS,
    }  # fmt: skip
    columns = [*NAMES, "__doubled"]
    result = command("stream", "--config", config(tmp_path, model, source, columns, "__row"), "--json")
    assert result.code == 0, result
    found = [ledger.read_shard(path) for path in sorted((tmp_path / "out").glob("p-*.csv"))]
    assert sorted((row for shard in found for row in shard), key=str) == sorted(wanted(rows, columns), key=str)
    shown = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    assert {row["__row"]: row["__error"] for row in shown} == {
        row["__row"]: row["__error"] for row in wanted(rows, columns)
    }
    dead_letters = [json.loads(line) for path in (tmp_path / "out").glob("dead-*") for line in path.open()]
    assert {dead_letter["key"] for dead_letter in dead_letters} == {"__row-7", "__row-30"}


def test_inputs_and_outputs_of_a_model_on_a_server() -> None:
    """TensorFlow gives no input such a name, other servers do."""
    from inference.batches import predict_batches
    from inference.columns.binding import bind
    from inference.errors import Failure
    from inference.marks import failures_of
    from model.specs import Signature, TensorSpec

    signature = Signature(
        "serving_default",
        (TensorSpec("__error", "int64", (None,)), TensorSpec("__row", "int64", (None,))),
        (TensorSpec("__row", "int64", (None,)), TensorSpec("inference.rows", "int64", (None,))),
        "predict",
    )
    batch = pa.RecordBatch.from_pydict({"__error": [1, None, 3], "__row": [10, 20, 30], "key": ["a", "b", "c"]})

    def call(arrays: list[pa.Array]) -> dict[str, pa.Array]:
        return {"__row": arrays[1], "inference.rows": arrays[0]}

    outputs = pa.schema([("__row", pa.int64()), ("inference.rows", pa.int64())])
    explain = lambda error: Failure("predict", "Error", str(error))  # noqa: E731
    [found] = predict_batches([batch], bind(signature, batch.schema), outputs, call, 10, explain)
    assert found.to_pydict() == {
        "__error": [1, None, 3],
        "__row": [10, None, 30],
        "key": ["a", "b", "c"],
        "inference.rows": [1, None, 3],
    }
    assert list(failures_of(found)) == [1]
