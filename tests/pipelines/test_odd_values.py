"""Runs over values that are not of their column's type: right in the output, or a dead letter, alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from pipelines.formats.tfrecord.writer import examples
from tests.support.commands import Command, save
from tests.support.ledger import dead_letters, shards, write_records


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that gives back what it takes."""
    import tensorflow as tf

    class Echo(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.int64, "i"),
                tf.TensorSpec([None], tf.float32, "f"),
                tf.TensorSpec([None], tf.string, "s"),
            ]
        )
        def __call__(self, i: Any, f: Any, s: Any) -> dict[str, Any]:
            return {"i_out": tf.identity(i), "f_out": tf.identity(f), "s_out": tf.identity(s)}

    return save(Echo(), tmp_path_factory.mktemp("echo"))


def run(command: Command, folder: Path, model: str, format: str, **source: Any) -> tuple[dict[str, Any], set[str]]:
    """Key -> row of the output, and the keys of the dead letters; fails if a key is in both, or twice in one."""
    extra = source.pop("columns_out", [])
    config = {
        "name": "odd",
        "source": {"type": "file", "format": format, "path": str(folder / "in" / "*"), "key": "id", **source},
        "model": {"type": "saved_model", "path": model},
        "output": {
            "type": "file",
            "format": "json",
            "path": str(folder / "out" / "p"),
            "columns": ["id", *extra, "i_out", "f_out", "s_out"],
        },
        "dead_letters": {"path": str(folder / "out" / "dead"), "max_fraction": 1},
    }
    (folder / "config.json").write_text(json.dumps(config))
    result = command("batch", "--config", str(folder / "config.json"))
    assert result.code == 0, result
    rows = [
        json.loads(line) for shard in shards(folder / "out" / "p") for line in shard.read_bytes().splitlines() if line
    ]
    dead = [dead_letter["key"] for dead_letter in dead_letters(folder / "out" / "dead")]
    good = {str(row["id"]): row for row in rows}
    assert len(good) == len(rows)
    assert len(set(dead)) == len(dead)
    assert not good.keys() & set(dead)
    return good, set(dead)


def test_a_run_over_json(command: Command, tmp_path: Path, echo: str) -> None:
    texts = {
        "18446744073709551001": '"i": 1.0, "f": 1, "s": "a", "p": 1, "t": "x"',
        "18446744073709551002": '"i": 2, "f": 0.5, "s": 7, "p": 2.5, "t": 7',
        '"007"': '"i": 9007199254740993, "f": [20.0], "s": true, "p": 3, "t": true',
        "7": '"i": 9007199254740993.0, "f": "2.5", "s": "1.0", "p": 4, "t": 1.0',
        "1.0": '"i": "12", "f": 3, "s": ["a"], "p": 5, "t": "y"',
        '"list"': '"i": 1, "f": [1, 2], "s": "a", "p": 6, "t": "y"',
        '"mixed list"': '"i": ["a", 1], "f": 1, "s": "a", "p": 7, "t": "y"',
        '"huge"': '"i": 1180591620717411303424, "f": 1, "s": "a", "p": 8, "t": "y"',
        '"half"': '"i": 25.5, "f": 1, "s": "a", "p": 9, "t": "y"',
        '"bool"': '"i": true, "f": 1, "s": "a", "p": 10, "t": "y"',
        '"lossy"': '"i": 1, "f": 1, "s": "a", "p": 9007199254740993, "t": "y"',
        '"text for a number"': '"i": 1, "f": 1, "s": "a", "p": "007", "t": "y"',
    }
    (tmp_path / "in").mkdir()
    lines = [f'{{"id": {key}, {rest}}}' for key, rest in texts.items()]
    # What is odd beyond the sample's first rows cannot change the types.
    plain = [f'{{"id": {n}.0, "i": 1, "f": 1.5, "s": "w", "p": 0.5, "t": "z"}}' for n in range(1_000, 2_100)]
    (tmp_path / "in" / "rows.json").write_text("\n".join([*lines[:2], *plain, *lines[2:]]))
    good, dead = run(command, tmp_path, echo, "json", columns_out=["p", "t"])
    assert dead == {"list", "mixed list", "huge", "half", "bool", "lossy", "text for a number"}
    found = {key: [good[key][name] for name in ("i_out", "f_out", "s_out", "p", "t")] for key in good}
    assert found["18446744073709551001"] == [1, 1, "a", 1, "x"]
    assert found["18446744073709551002"] == [2, 0.5, "7", 2.5, "7"]
    assert found["007"] == [9007199254740993, 20.0, "True", 3, "true"]
    assert found["7"] == [9007199254740993, 2.5, "1.0", 4, "1.0"]
    assert found["1.0"] == [12, 3, "a", 5, "y"]
    assert found["1000.0"] == [1, 1.5, "w", 0.5, "z"]
    assert len(good) + len(dead) == len(lines) + len(plain)


def test_a_run_over_csv(command: Command, tmp_path: Path, echo: str) -> None:
    (tmp_path / "in").mkdir()
    rows = [
        "a,25.0,NaN,1,007",
        "b,1e3,1e40,2,1",
        "c,+7,-inf,3,2",
        "d,25.5,1,4,3",
        "e,9007199254740993.0,16777217,x,9007199254740993",
        "007,1,1.5,y,",
    ]
    (tmp_path / "in" / "rows.csv").write_text("\n".join(["id,i,f,s,p", *rows]))
    good, dead = run(command, tmp_path, echo, "csv", columns_out=["p", "i", "f"])
    assert dead == {"b", "d"}
    found = {key: [row[name] for name in ("i_out", "f_out", "s_out", "p", "i", "f")] for key, row in good.items()}
    assert found == {
        "a": [25, None, "1", "007", "25.0", "NaN"],
        "c": [7, None, "3", "2", "+7", "-inf"],
        "e": [9007199254740993, 16777216.0, "x", "9007199254740993", "9007199254740993.0", "16777217"],
        "007": [1, 1.5, "y", None, "1", "1.5"],
    }


def test_a_column_of_nothing_but_nan(command: Command, tmp_path: Path, echo: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "rows.csv").write_text("id,i,f,s\na,1,NaN,x\n")
    assert run(command, tmp_path, echo, "csv") == ({"a": {"id": "a", "i_out": 1, "f_out": None, "s_out": "x"}}, set())


FLOATS = {"a": [20.0], "b": [21.0, 22.0], "c": [23.0], "d": [24.0, 25.0, 26.0], "e": [27.5]}


@pytest.mark.parametrize("format", ["json", "parquet", "orc", "avro", "tfrecord"])
def test_lists_of_one_value_unwrap_and_longer_ones_are_dead_alone(
    command: Command, tmp_path: Path, echo: str, format: str
) -> None:
    rows = [{"id": key, "i": 1, "f": values, "s": ["w"]} for key, values in FLOATS.items()]
    types = [("id", pa.string()), ("i", pa.int64()), ("f", pa.list_(pa.float32())), ("s", pa.list_(pa.string()))]
    table = pa.Table.from_pylist(rows, pa.schema(types))
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / f"rows.{format}"
    if format == "json":
        file.write_text("\n".join(json.dumps(row) for row in rows))
    elif format == "parquet":
        pq.write_table(table, file)
    elif format == "orc":
        pyarrow.orc.write_table(table, file)
    elif format == "avro":
        fields: list[Any] = [{"name": "id", "type": "string"}, {"name": "i", "type": "long"}]
        fields += [{"name": n, "type": {"type": "array", "items": t}} for n, t in (("f", "float"), ("s", "string"))]
        with file.open("wb") as opened:
            fastavro.writer(opened, {"type": "record", "name": "r", "fields": fields}, rows)
    else:
        write_records(file, examples(table.to_batches()[0]).to_pylist())
    good, dead = run(command, tmp_path, echo, format)
    assert {key: row["f_out"] for key, row in good.items()} == {"a": 20.0, "c": 23.0, "e": 27.5}
    assert dead == {"b", "d"}
