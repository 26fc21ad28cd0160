"""Rows of a source, repeated: as many as wanted, and the same to every reader."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import orc, parquet

from pipelines.comparison.inputs import MOST_DISTINCT, first_rows, room_needed, source_of
from pipelines.config.errors import ConfigError
from pipelines.config.load import load
from pipelines.planning.planner import make_plan
from pipelines.planning.sampling import take_sample
from tests.support.ledger import MODEL

COLUMNS = {
    "is_male": "True", "mother_race": "White", "mother_age": 30, "plurality": 1, "gestation_weeks": 39,
    "mother_married": "True", "cigarette_use": "False", "alcohol_use": "False",
}  # fmt: skip
ROWS = [{**COLUMNS, "source_id": f"r{number}", "mother_age": 20 + number} for number in range(7)]


def write(folder: Path, format: str) -> tuple[str, dict[str, Any]]:
    """Writes ROWS; returns the path and what the source's config has beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(ROWS)
    path = folder / f"births.{format}"
    if format == "parquet":
        parquet.write_table(table, path)
    elif format == "orc":
        orc.write_table(table, str(path))
    elif format == "json":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif format == "avro":
        import fastavro

        types = {int: "long", str: "string"}
        fields = [{"name": name, "type": types[type(value)]} for name, value in ROWS[0].items()]
        with path.open("wb") as file:
            fastavro.writer(file, {"type": "record", "name": "birth", "fields": fields}, ROWS)
    elif format == "tfrecord":
        import tensorflow as tf

        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in ROWS:
                features = {
                    name: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
                    if isinstance(value, int)
                    else tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                    for name, value in row.items()
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    else:
        header, rows = ";".join(ROWS[0]), [";".join(map(str, row.values())) for row in ROWS]
        path.write_text("\n".join([header, *rows]), "utf-16")
        return str(path), {"delimiter": ";", "encoding": "utf-16"}
    return str(path), {}


def config_of(folder: Path, source: dict[str, Any]) -> str:
    path = folder / "config.json"
    config = {
        "source": {"type": "file", "key": "source_id", **source},
        "model": {"path": MODEL},
        "output": {"type": "file", "format": "csv", "path": str(folder / "out")},
    }
    path.write_text(json.dumps(config))
    return str(path)


@pytest.mark.parametrize("format", ["csv", "json", "parquet", "avro", "orc", "tfrecord"])
@pytest.mark.parametrize("rows", [3, 7, 24])
def test_so_many_rows_of_each_format(tmp_path: Path, format: str, rows: int) -> None:
    path, settings = write(tmp_path / "data", format)
    config = config_of(tmp_path, {"format": format, "path": path, **settings})
    plan = make_plan(load(config))
    repeated = first_rows(plan, rows)
    assert repeated.rows == min(rows, 7)
    assert repeated.has_unique(plan, "source_id")
    assert not repeated.has_unique(plan, "plurality") or rows == 1
    changes = source_of(plan, tmp_path / "inputs", rows, repeated)
    grown = make_plan(load(config, [json.dumps(changes)]))
    sample = take_sample(grown, 1_000)
    assert (sample.read, sample.rejected) == (rows, ())
    assert sample.batch is not None
    keys = [str(key) for key in sample.batch["source_id"].to_pylist()]
    assert keys == [f"r{number % 7}" for number in range(rows)]
    ages = [int(age) for age in sample.batch["mother_age"].to_pylist()]
    assert ages == [20 + number % 7 for number in range(rows)]


def test_rows_that_cannot_be_decoded_stay_what_they_are(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in ROWS[:3]]
    (tmp_path / "a.jsonl").write_text(lines[0] + "\n{not json\n" + lines[1] + "\n")
    config = config_of(tmp_path, {"format": "json", "path": str(tmp_path / "a.jsonl")})
    plan = make_plan(load(config))
    changes = source_of(plan, tmp_path / "inputs", 6, first_rows(plan, 6))
    sample = take_sample(make_plan(load(config, [json.dumps(changes)])), 100)
    assert (sample.read, len(sample.rejected)) == (6, 2)


def test_quotes_and_line_ends_within_fields(tmp_path: Path) -> None:
    values = {**COLUMNS, "source_id": 'a "quoted"\r\nkey'}
    shown = ",".join('"' + str(value).replace('"', '""') + '"' for value in values.values())
    (tmp_path / "a.csv").write_bytes((",".join(values) + "\r\n" + shown + "\r\n").encode())
    config = config_of(tmp_path, {"format": "csv", "path": str(tmp_path / "a.csv")})
    plan = make_plan(load(config))
    changes = source_of(plan, tmp_path / "inputs", 3, first_rows(plan, 3))
    sample = take_sample(make_plan(load(config, [json.dumps(changes)])), 100)
    assert sample.batch is not None
    assert sample.batch["source_id"].to_pylist() == ['a "quoted"\r\nkey'] * 3


def test_a_source_without_rows_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",".join(ROWS[0]) + "\n")
    config = config_of(tmp_path, {"format": "csv", "path": str(tmp_path / "a.csv")})
    with pytest.raises(Exception, match="there are no rows to compare ways with"):
        first_rows(make_plan(load(config)), 10)


@pytest.mark.parametrize("format", ["csv", "json", "avro", "parquet", "orc", "tfrecord"])
def test_a_source_whose_file_is_empty_says_so(tmp_path: Path, format: str) -> None:
    (tmp_path / f"a.{format}").touch()
    config = config_of(tmp_path, {"format": format, "path": str(tmp_path / f"a.{format}")})
    with pytest.raises(ConfigError, match="there are no rows to compare ways with"):
        first_rows(make_plan(load(config)), 10)


def test_files_without_bytes_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "data", "json")
    (tmp_path / "data" / "a-first.json").touch()
    config = config_of(tmp_path, {"format": "json", "path": str(tmp_path / "data")})
    assert first_rows(make_plan(load(config)), 10).rows == 7


@pytest.mark.parametrize("format", ["csv", "json", "parquet", "avro", "orc", "tfrecord"])
def test_how_many_bytes_inputs_need_is_known_before_they_are_written(tmp_path: Path, format: str) -> None:
    path, settings = write(tmp_path / "data", format)
    plan = make_plan(load(config_of(tmp_path, {"format": format, "path": path, **settings})))
    repeated, folder = first_rows(plan, 10), tmp_path / "inputs"
    needed = room_needed(folder, [700], repeated)
    source_of(plan, folder, 700, repeated)
    written = sum(file.stat().st_size for file in folder.rglob("rows.*"))
    # ORC hardly needs bytes for values that repeat.
    assert needed / (6 if format == "orc" else 1.1) <= written <= needed * 1.1
    assert room_needed(folder, [700], repeated) == 0


def test_a_large_source_is_read_in_part(tmp_path: Path) -> None:
    line = json.dumps(ROWS[0]) + "\n"
    (tmp_path / "a.jsonl").write_text(line * (MOST_DISTINCT + 5))
    config = config_of(tmp_path, {"format": "json", "path": str(tmp_path / "a.jsonl")})
    assert first_rows(make_plan(load(config)), 10**6).rows == MOST_DISTINCT
