"""Values of any type through a run: the same value comes out, or its row is a dead letter; none becomes another one."""

from __future__ import annotations

import base64
import csv
import datetime
import io
import json
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import polars as pl
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from pipelines.formats.avro import container as avro_container
from tests.support.arrow_types import all_arrays, unions
from tests.support.commands import Command, save

ROWS = 3
NOON = datetime.datetime(2024, 1, 2, 12)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Doubles its input."""
    import tensorflow as tf

    class Doubles(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "n")])
        def __call__(self, n: Any) -> dict[str, Any]:
            return {"twice": n * 2}

    return save(Doubles(), tmp_path_factory.mktemp("doubles"))


Run = Callable[..., tuple[list[dict[str, Any]], list[dict[str, Any]], Any]]


@pytest.fixture
def run(command: Command, tmp_path: Path, model: str) -> Run:
    """Predicts the files in `tmp_path`/in; gives the rows written, the dead letters, and what the command said."""

    def runs(format: str, output: str = "json", *, module: str = "batch", **source: Any) -> Any:
        columns = source.pop("written", None)
        config = {
            "name": "types",
            "source": {"type": "file", "format": format, "path": str(tmp_path / "in"), **source},
            "model": {"type": "saved_model", "path": model},
            "output": {"type": "file", "format": output, "path": str(tmp_path / "out" / "p"), "columns": columns},
            "dead_letters": {"path": str(tmp_path / "out" / "dead"), "max_fraction": 1},
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        result = command(module, "--config", str(tmp_path / "config.json"))
        rows = [row for shard in sorted((tmp_path / "out").glob("p-*")) for row in _read(shard, output)]
        dead_letters = [
            json.loads(line)
            for shard in sorted((tmp_path / "out").glob("dead-*"))
            for line in shard.read_text().splitlines()
        ]
        return rows, dead_letters, result

    (tmp_path / "in").mkdir()
    return runs


def _read(shard: Path, format: str) -> list[Any]:
    if format == "json":
        return [json.loads(line) for line in shard.read_text().splitlines()]
    if format == "csv":
        return list(csv.DictReader(io.StringIO(shard.read_text())))
    if format == "parquet":
        return list(pq.read_table(shard).to_pylist())
    return [{} for _ in fastavro.reader(io.BytesIO(shard.read_bytes()))] if format == "avro" else []


def write(path: Path, table: pa.Table) -> None:
    """Writes a table in the format of the path's extension."""
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".orc":
        orc.write_table(table, str(path))
    else:
        with path.open("wb") as file:
            pl.DataFrame(pl.from_arrow(table)).write_avro(file)


def _parquet_has(array: pa.Array) -> bool:
    try:
        sink = io.BytesIO()
        pq.write_table(pa.table({"x": array}), sink)
        pq.read_table(sink)
    except (pa.ArrowException, OSError):
        return False
    return True


@pytest.mark.parametrize("output", ["csv", "json", "parquet", "avro", "tfrecord"])
def test_a_column_of_every_type_that_parquet_has(run: Run, tmp_path: Path, output: str) -> None:
    arrays = {name: array for name, array in all_arrays().items() if _parquet_has(array)}
    if output == "tfrecord":
        arrays = {name: array for name, array in arrays.items() if "<" not in name}
    names = {f"c{number}": array for number, array in enumerate(arrays.values())}
    stored = pa.array([uuid.UUID(int=number).bytes for number in range(ROWS)], pa.binary(16))
    keys = pa.ExtensionArray.from_storage(pa.uuid(), stored)
    numbers = pa.array([1.0, 2.0, None])
    pq.write_table(pa.table({"id": keys, "n": numbers, **names}), tmp_path / "in" / "a.parquet")
    rows, dead_letters, result = run("parquet", output, key="id", defaults={"n": 0}, written=["id", *names, "twice"])
    assert (result.code, dead_letters) == (0, []), result
    if output in ("csv", "json", "parquet"):
        assert [row["id"] for row in rows] == [str(uuid.UUID(int=number)) for number in range(ROWS)]
    assert len(arrays) > (40 if output == "tfrecord" else 250)


@pytest.mark.parametrize("output", ["csv", "json", "parquet", "avro", "tfrecord"])
def test_a_type_that_no_format_has_is_refused_before_the_run(run: Run, tmp_path: Path, output: str) -> None:
    write(tmp_path / "in" / "a.orc", pa.table({"id": [1, 2, 3], "n": [1.0] * 3, "u": unions()["sparse union"]}))
    _, _, result = run("orc", output, module="check", key="id", written=["id", "u", "twice"])
    assert result.code == 2, result
    assert "output.columns: 'u': " in result.errors[0]
    assert "leave it out, or convert it" in result.errors[0]


def test_what_polars_writes_takes_defaults_nulls_and_dead_letters(run: Run, tmp_path: Path) -> None:
    kinds = {"id": pa.string_view(), "n": pa.string_view(), "raw": pa.binary_view(), "tags": pa.list_(pa.string_view())}
    data = {
        "id": ["a", "b", None, "d"],
        "n": ["1", "x", "3", None],
        "raw": [b"1", b"2", None, b"4"],
        "tags": [["u", "v"], [], None, ["w" * 40]],
    }
    write(tmp_path / "in" / "a.parquet", pa.table(data, pa.schema(list(kinds.items()))))
    pl.DataFrame({**data, "id": ["e", "f", "g", "h"]}).write_parquet(tmp_path / "in" / "b.parquet")
    rows, dead_letters, result = run("parquet", key="id", defaults={"n": 0}, written=["id", "raw", "tags", "twice"])
    assert result.code == 0, result
    by_key = {row["id"]: (row["tags"], row["raw"], row["twice"]) for row in rows}
    unnamed = f"{tmp_path}/in/a.parquet:2"
    values = [(["u", "v"], "1", 2.0), (None, None, 6.0), (["w" * 40], "4", 0.0)]
    assert by_key == dict(zip(["a", unnamed, "d", "e", "g", "h"], values * 2, strict=True))
    assert {dead_letter["key"] for dead_letter in dead_letters} == {"b", "f"}
    payload = next(dead_letter["payload"] for dead_letter in dead_letters if dead_letter["key"] == "b")
    row = pq.read_table(io.BytesIO(base64.b64decode(payload))).to_pylist()
    assert row == [{"id": "b", "n": "x", "raw": b"2", "tags": []}]


def write_twice(path: Path) -> None:
    """A file with two columns of one name."""
    table = pa.table([pa.array(["t"]), pa.array([1.0]), pa.array([2.0])], names=["id", "n", "n"])
    if path.suffix != ".avro":
        write(path, table)
        return
    fields = [{"name": name, "type": "double" if name == "n" else "string"} for name in table.column_names]
    record = {"type": "record", "name": "row", "fields": fields}
    mark = b"0" * avro_container.SYNC_BYTES
    rows = avro_container.block_bytes(1, b"\x02t" + bytes(16), mark)
    path.write_bytes(avro_container.header_bytes(record, "null", mark) + rows)


@pytest.mark.parametrize("module", ["check", "batch"])
@pytest.mark.parametrize("format", ["parquet", "orc", "avro"])
def test_columns_of_one_name_are_said(run: Run, tmp_path: Path, format: str, module: str) -> None:
    file = tmp_path / "in" / f"a.{format}"
    write_twice(file)
    _, _, result = run(format, module=module, key="id")
    assert result.code == 2, result
    assert f"{file}: " in result.errors[0]
    assert "column 'n' appears twice" in result.errors[0]
    assert "Traceback" not in result.err


@pytest.mark.parametrize("format", ["parquet", "orc", "avro"])
def test_a_later_file_with_columns_of_one_name_is_a_dead_letter(run: Run, tmp_path: Path, format: str) -> None:
    write(tmp_path / "in" / f"a.{format}", pa.table({"id": ["a"], "n": [1.0]}))
    write_twice(tmp_path / "in" / f"b.{format}")
    rows, dead_letters, result = run(format, key="id")
    assert result.code == 0, result
    assert [row["id"] for row in rows] == ["a"]
    (dead_letter,) = dead_letters
    assert "column 'n' appears twice" in dead_letter["message"]
    assert str(tmp_path / "in" / f"b.{format}") in dead_letter["source"]


NEW_YORK = pa.timestamp("us", "America/New_York")
# Values of the first file; of the second file; what becomes of these, None for a dead letter.
CHANGES: dict[str, tuple[pa.Array, pa.Array, list[Any]]] = {
    "zeros": (pa.array([1]), pa.array(["007", "7"]), [None, 7]),
    "bool as int": (pa.array([1]), pa.array([True, False]), [None, None]),
    "text as bool": (pa.array([True]), pa.array(["1", "true"]), [None, True]),
    "zoned as naive": (pa.array([NOON]), pa.array([NOON, NOON], NEW_YORK), [None, None]),
    "wide floats": (
        pa.array([1.0], pa.float32()),
        pa.array([16777216.0, 16777217.0, 0.1, 1e300, -0.5]),
        [16777216.0, 16777217.0, 0.1, 1e300, -0.5],
    ),
    "wide integers": (pa.array([1], pa.int32()), pa.array([2**31, 5]), [2**31, 5]),
    "integers as floats": (pa.array([1.0]), pa.array([2**53 + 1, 7]), [None, 7.0]),
    "floats as integers": (pa.array([1]), pa.array([7.5, 7.0]), [7.5, 7.0]),
    "decimals": (
        pa.array([1.0], pa.float32()),
        pa.array([Decimal("1" + "0" * 60), Decimal(2)], pa.decimal256(76, 0)),
        [None, 2.0],
    ),
    "dates as text": (pa.array(["x"]), pa.array([NOON.date()]), ["2024-01-02"]),
    "lists": (pa.array([[1]]), pa.array([["1"], ["01"]]), [[1], None]),
}


def test_the_types_of_the_first_file_change_no_later_value(run: Run, tmp_path: Path) -> None:
    """Each row of the second file has a value in one column, and null in the others.

    A column has a type that holds what both files have, where there is one.
    """
    names = {f"x{number}": what for number, what in enumerate(CHANGES)}
    columns = {name: CHANGES[what][0] for name, what in names.items()}
    write(tmp_path / "in" / "a.parquet", pa.table({"row": [-1], "n": [1.0], **columns}))
    expected = [(name, value) for name, what in names.items() for value in CHANGES[what][2]]
    columns, before = {}, 0
    for name, what in names.items():
        values = CHANGES[what][1]
        around = (pa.nulls(before, values.type), pa.nulls(len(expected) - before - len(values), values.type))
        columns[name] = pa.concat_arrays([around[0], values, around[1]])
        before += len(values)
    rows = pa.array(range(len(expected)))
    write(tmp_path / "in" / "b.parquet", pa.table({"row": rows, "n": rows.cast(pa.float64()), **columns}))
    written, dead_letters, result = run("parquet", key="row", written=["row", *names, "twice"])
    assert result.code == 0, result
    kept = {row["row"]: [(name, row[name]) for name in names if row[name] is not None] for row in written}
    del kept[-1]
    assert kept == {row: [pair] for row, pair in enumerate(expected) if pair[1] is not None}
    said = {int(dead_letter["key"]): dead_letter["message"].partition(":")[0] for dead_letter in dead_letters}
    assert said == {row: f"column '{name}'" for row, (name, value) in enumerate(expected) if value is None}


@pytest.mark.parametrize("what", ["zeros", "wide floats"])
def test_the_types_of_the_first_file_change_no_key(run: Run, tmp_path: Path, what: str) -> None:
    first, second, expected = CHANGES[what]
    write(tmp_path / "in" / "a.parquet", pa.table({"id": first, "n": pa.array([-1.0])}))
    places = pa.array([float(place) for place in range(len(second))])
    write(tmp_path / "in" / "b.parquet", pa.table({"id": second, "n": places}))
    rows, dead_letters, result = run("parquet", key="id")
    assert result.code == 0, result
    kept = {row["twice"] / 2: row["id"] for row in rows if row["twice"] >= 0}
    assert kept == {row: value for row, value in enumerate(expected) if value is not None}
    assert {dead_letter["key"] for dead_letter in dead_letters} == {
        str(value) for value, wanted in zip(second.to_pylist(), expected, strict=True) if wanted is None
    }


@pytest.mark.parametrize("format", ["parquet", "orc", "avro"])
def test_a_number_that_is_too_large_for_the_model_is_a_dead_letter(run: Run, tmp_path: Path, format: str) -> None:
    write(tmp_path / "in" / f"a.{format}", pa.table({"id": ["a", "b"], "n": [1e300, 1.0]}))
    rows, dead_letters, _ = run(format, key="id")
    assert ([row["id"] for row in rows], [dead_letter["key"] for dead_letter in dead_letters]) == (["b"], ["a"])


@pytest.mark.parametrize("output", ["csv", "json", "tfrecord"])
def test_a_time_that_python_does_not_know_ends_nothing(run: Run, tmp_path: Path, output: str) -> None:
    """As dates, of which polars cannot write all, and as keys of dead letters."""
    days = pa.array([2**31 - 1, -(2**31), 0, 0], pa.int32()).cast(pa.date32())
    times = pa.array([2**62, 0, -(2**62), 0]).cast(pa.timestamp("us"))
    table = pa.table({"id": days, "t": times, "n": ["1", "2", "3", "x"]})
    write(tmp_path / "in" / "a.parquet", table)
    _, _, checked = run("parquet", output, module="check", key="id", written=["id", "t", "twice"])
    assert checked.code == 0, checked
    _, dead_letters, result = run("parquet", output, key="id", written=["id", "t", "twice"])
    assert result.code == 0, result
    assert "Traceback" not in result.err
    assert "1970-01-01" in {dead_letter["key"] for dead_letter in dead_letters}


def test_times_of_any_year_come_out_as_they_are(run: Run, tmp_path: Path) -> None:
    """INT96, in which Spark and others write times: nanoseconds would not hold them."""
    times = [datetime.datetime(year, 1, 1, 1, 2, 3, 456_789) for year in (1000, 1677, 2024, 2262, 2500, 9999)]
    table = pa.table({"id": pa.array(range(6)), "n": pa.array([1.0] * 6), "t": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "in" / "a.parquet", use_deprecated_int96_timestamps=True)
    rows, dead_letters, result = run("parquet", "parquet", key="id", written=["id", "t", "twice"])
    assert (result.code, dead_letters) == (0, []), result
    assert [row["t"] for row in rows] == times


def test_only_a_time_that_the_first_file_cannot_hold_is_refused(run: Run, tmp_path: Path) -> None:
    """ORC, of which pyarrow refuses a whole stripe for one such time."""
    far = datetime.datetime(2500, 1, 1)
    for name, times in (("a", [NOON, NOON]), ("b", [far, NOON])):
        table = pa.table({"id": [f"{name}1", f"{name}2"], "n": [1.0, 2.0], "t": pa.array(times, pa.timestamp("us"))})
        write(tmp_path / "in" / f"{name}.orc", table)
    rows, dead_letters, result = run("orc", "parquet", key="id", written=["id", "t", "twice"])
    assert result.code == 0, result
    assert {row["id"]: row["t"] for row in rows} == dict.fromkeys(["a1", "a2", "b2"], NOON)
    (dead_letter,) = dead_letters
    assert dead_letter["key"] == "b1"
    assert "timestamp[ns]" in dead_letter["message"]
    row = orc.ORCFile(io.BytesIO(base64.b64decode(dead_letter["payload"])))
    assert row.nrows == 1


def test_nanoseconds_are_not_cut_off(run: Run, tmp_path: Path) -> None:
    """The unit of a file's first times is that of the column; a time that it does not hold is a dead letter."""
    fine = 1_700_000_000_123_456_789
    times = {"a": pa.array([fine, fine + 1], pa.timestamp("ns")), "b": pa.array([NOON, None], pa.timestamp("us"))}
    times["c"] = pa.array([datetime.datetime(2500, 1, 1), NOON], pa.timestamp("us"))
    for name, values in times.items():
        table = pa.table({"id": [name + "1", name + "2"], "n": [1.0, 2.0], "t": values})
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet", use_deprecated_int96_timestamps=True)
    rows, dead_letters, result = run("parquet", "json", key="id", written=["id", "t", "twice"])
    assert result.code == 0, result
    noon = "2024-01-02 12:00:00"
    start = "2023-11-14 22:13:20.1234567"
    assert {row["id"]: row["t"] for row in rows} == {
        "a1": f"{start}89", "a2": f"{start}90", "b1": noon, "b2": None, "c2": noon
    }  # fmt: skip
    assert [dead_letter["key"] for dead_letter in dead_letters] == ["c1"]


@pytest.mark.parametrize("type", [pa.int64(), pa.timestamp("us"), pa.string()], ids=str)
def test_a_row_without_a_key_is_written(run: Run, tmp_path: Path, type: pa.DataType) -> None:
    """With null where a key is no text, with its place in its file where it is."""
    keys = pa.array([0, None, 1], pa.int64()).cast(type)
    write(tmp_path / "in" / "a.parquet", pa.table({"id": keys, "n": pa.array([1.0, 2.0, 3.0])}))
    rows, dead_letters, result = run("parquet", "parquet", key="id")
    assert (result.code, dead_letters) == (0, []), result
    missing = f"{tmp_path}/in/a.parquet:1" if type == pa.string() else None
    assert [row["id"] for row in rows] == [keys[0].as_py(), missing, keys[2].as_py()]


UUIDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(int=n).bytes for n in (1, 2)], pa.binary(16)))
KEYS: dict[str, tuple[pa.Array, str]] = {
    "bytes": (pa.array([b"a", b"b"]), "b"),
    "list": (pa.array([["a"], ["b"]]), '["b"]'),
    "time": (pa.array([NOON.replace(hour=1), NOON]), "2024-01-02T12:00:00.000000"),
    "uuid": (UUIDS, "00000000-0000-0000-0000-000000000002"),
    "null": (pa.array([1, None]), "{file}:1"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_dead_letter_has_the_key_that_a_csv_would_have(run: Run, tmp_path: Path, kind: str) -> None:
    keys, expected = KEYS[kind]
    for name, numbers in (("a", ["1", "x"]), ("b", ["1", "2"])):
        write(tmp_path / "in" / f"{name}.parquet", pa.table({"id": keys, "n": numbers}))
    rows, dead_letters, result = run("parquet", "csv", key="id")
    assert result.code == 0, result
    (dead_letter,) = dead_letters
    assert dead_letter["key"] == expected.replace("{file}", f"{tmp_path}/in/a.parquet")
    if kind != "null":
        assert sum(row["id"] == expected for row in rows) == 1
