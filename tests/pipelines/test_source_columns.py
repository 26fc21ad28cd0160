"""Files of one source whose columns differ: their types are merged, and what that does to rows is said or refused."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from pipelines.planning import source_columns
from pipelines.planning.merged_types import merged
from pipelines.storage import FileInfo
from tests.support import ledger
from tests.support.commands import Command
from tests.support.lacking_columns import write_without
from tests.support.ledger import (
    AVRO_SCHEMA,
    FORMATS_IN,
    KEY,
    Row,
    births,
    books_of,
    read_shard,
    shards,
    write_config,
    write_rows,
)

TIME = datetime.datetime(2024, 5, 1, 12, 30, 15)
NUMBERS = (
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.uint8(),
    pa.uint16(),
    pa.uint32(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.float64(),
)

Side = tuple[Any, Any]
"""Type, and the value of every row."""

PAIRS: dict[str, list[tuple[Side, Side]]] = {
    "parquet": [
        ((pa.null(), None), (pa.string(), "x")),
        ((pa.null(), None), (pa.list_(pa.int64()), [1, 2])),
        ((pa.null(), None), (pa.timestamp("us", "UTC"), TIME.replace(tzinfo=datetime.timezone.utc))),
        ((pa.int32(), 7), (pa.int64(), 1 << 40)),
        ((pa.uint32(), 4_000_000_000), (pa.int32(), -7)),
        ((pa.uint64(), (1 << 64) - 1), (pa.int64(), -7)),
        ((pa.int32(), (1 << 31) - 1), (pa.float32(), 0.5)),
        ((pa.int64(), 1 << 53), (pa.float64(), 2.5)),
        ((pa.float32(), 0.5), (pa.float64(), 1e300)),
        ((pa.dictionary(pa.int8(), pa.string()), "x"), (pa.string(), "y")),
        ((pa.large_string(), "x"), (pa.string(), "y")),
        ((pa.binary(), b"x"), (pa.large_binary(), b"y")),
        ((pa.timestamp("ms"), TIME), (pa.timestamp("us"), TIME.replace(microsecond=1))),
        ((pa.decimal128(5, 2), Decimal("123.45")), (pa.decimal128(9, 0), Decimal(123456789))),
        ((pa.list_(pa.int32()), [1]), (pa.list_(pa.int64()), [1 << 40])),
        ((pa.list_(pa.null()), [None]), (pa.list_(pa.string()), ["x"])),
        ((pa.struct([("a", pa.int32())]), {"a": 1}), (pa.struct([("a", pa.int64())]), {"a": 1 << 40})),
    ],
    "orc": [
        ((pa.int32(), 7), (pa.int64(), 1 << 40)),
        ((pa.int32(), (1 << 31) - 1), (pa.float64(), 0.5)),
        ((pa.float32(), 0.5), (pa.float64(), 1e300)),
        ((pa.list_(pa.int32()), [1]), (pa.list_(pa.int64()), [1 << 40])),
        ((pa.decimal128(5, 2), Decimal("123.45")), (pa.decimal128(9, 0), Decimal(123456789))),
    ],
    "avro": [
        (("null", None), ("string", "x")),
        (("null", None), (["null", "long"], 7)),
        (("int", 7), ("long", 1 << 40)),
        (("int", (1 << 31) - 1), ("double", 0.5)),
        (("float", 0.5), ("double", 1e300)),
        (("long", 1 << 53), (["null", "double"], 2.5)),
    ],
    "json": [
        ((None, None), (None, "x")),
        ((None, None), (None, 7)),
        ((None, None), (None, True)),
        ((None, None), (None, [1, 2])),
        ((None, 7), (None, 2.5)),
        ((None, [7]), (None, [2.5])),
    ],
    "tfrecord": [
        ((None, None), (None, "x")),
        ((None, 7), (None, 0.5)),
    ],
    "csv": [((None, None), (None, "x")), ((None, "7"), (None, "x"))],
}


def write(path: Path, format: str, rows: Sequence[Row], extra: dict[str, Side]) -> None:
    """A file of births with further columns of types of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    full = [{**row, **{name: value for name, (_, value) in extra.items()}} for row in rows]
    if format in ("parquet", "orc"):
        schema = pa.schema([*ledger.SCHEMA, *((name, type) for name, (type, _) in extra.items())])
        (pq if format == "parquet" else orc).write_table(pa.Table.from_pylist(full, schema), str(path))
    elif format == "avro":
        fields = [*AVRO_SCHEMA["fields"], *({"name": name, "type": type} for name, (type, _) in extra.items())]
        with path.open("wb") as file:
            fastavro.writer(file, {**AVRO_SCHEMA, "fields": fields}, full)
    elif format == "json":
        path.write_bytes(ledger.lines(map(ledger.json_row, full)))
    elif format == "csv":
        columns = tuple(full[0])
        path.write_bytes(ledger.lines((ledger.csv_row(row, None, columns) for row in full), ",".join(columns).encode()))
    else:
        ledger.write_records(path, map(example, full))


def example(row: Row) -> bytes:
    """As the ledger's, with integers and without what is missing."""
    import tensorflow as tf

    made = tf.train.Example.FromString(ledger.example({k: v for k, v in row.items() if not isinstance(v, int)}))
    for name, value in row.items():
        if isinstance(value, int):
            made.features.feature[name].int64_list.value.append(value)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("format", FORMATS_IN)
def test_every_value_comes_out_whatever_the_first_files_types_are(
    command: Command, tmp_path: Path, format: str, reverse: bool
) -> None:
    rows = births(12, 3)
    names = [f"p{i}" for i in range(len(PAIRS[format]))]
    sides = [dict(zip(names, side, strict=True)) for side in zip(*PAIRS[format], strict=True)]
    for number, side in enumerate(sides):
        write(tmp_path / "in" / f"{number ^ reverse}.{format}", format, rows[number * 6 : number * 6 + 6], side)
    output = "json" if format in ("json", "csv") else "parquet"
    config = write_config(
        tmp_path, format, str(tmp_path / "in"), output, output={"columns": [KEY, *names, "predictions"]}
    )
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    books = books_of(tmp_path)
    assert [dead_letter["message"] for dead_letter in books.dead_letters] == []
    found = {row[KEY]: row for row in books.output}
    assert len(found) == 12
    for number, row in enumerate(rows):
        for name, (_, value) in sides[number // 6].items():
            got = found[row[KEY]][name]
            assert got == value, (name, PAIRS[format][int(name[1:])])


@pytest.mark.parametrize("format", FORMATS_IN)
def test_a_model_gets_values_of_a_column_that_is_null_in_the_first_file(
    command: Command, tmp_path: Path, format: str
) -> None:
    rows = births(20, 5)
    first = [{**row, "cigarette_use": None, "gestation_weeks": None} for row in rows[:10]]
    schema = pa.schema(
        [f.with_type(pa.null()) if f.name in ("cigarette_use", "gestation_weeks") else f for f in ledger.SCHEMA]
    )
    write_rows(tmp_path / "in" / f"0.{format}", format, first)
    if format == "parquet":
        pq.write_table(ledger.table(first, schema), tmp_path / "in" / "0.parquet")
    write_rows(tmp_path / "in" / f"1.{format}", format, rows[10:])
    config = write_config(tmp_path, format, str(tmp_path / "in"))
    assert command("batch", "--config", config, "--json").code == 0
    ledger.assert_balanced(books_of(tmp_path), [*first, *rows[10:]], {})


POSITIONS = {
    KEY: "no 'source_id'",
    "gestation_weeks": "input 'gestation_weeks' takes its default, nan, in their rows",
    "mother_age": "their rows become dead letters; give a value for them with source.defaults",
    "note": "it is null in their rows",
}


@pytest.mark.parametrize("later", [True, False])
@pytest.mark.parametrize(("name", "said"), POSITIONS.items())
@pytest.mark.parametrize("format", FORMATS_IN)
def test_a_column_that_some_files_lack_is_said(
    command: Command, tmp_path: Path, format: str, name: str, said: str, later: bool
) -> None:
    rows = births(20, 6)
    (tmp_path / "in").mkdir()
    full, lacking = ("0", "1") if later else ("1", "0")
    write_rows(tmp_path / "in" / f"{full}.{format}", format, rows[:10])
    write_without(tmp_path / "in" / f"{lacking}.{format}", format, rows[10:], name)
    config = write_config(
        tmp_path, format, str(tmp_path / "in"), "json", output={"columns": [KEY, "note", "predictions"]}
    )
    result = command("check", "--config", config, "--json")
    if name == KEY and format not in ("json", "tfrecord"):
        assert result.code == 2
        assert f"source.key: {tmp_path}/in/{lacking}.{format} has no column 'source_id', which identifies" in result.err
        return
    assert result.code == 0, result
    notes = [note for note in result.summary["notes"] if said in note]
    assert len(notes) == 1
    assert f"in/{lacking}.{format}" in notes[0]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_rows_of_a_file_without_a_column_become_what_the_note_says(
    command: Command, tmp_path: Path, format: str
) -> None:
    rows = births(20, 6)
    (tmp_path / "in").mkdir()
    write_rows(tmp_path / "in" / f"0.{format}", format, rows[:10])
    write_without(tmp_path / "in" / f"1.{format}", format, rows[10:], "mother_age")
    config = write_config(tmp_path, format, str(tmp_path / "in"))
    result = command("batch", "--config", config, "--json")
    assert "become dead letters" in result.err
    ledger.assert_balanced(books_of(tmp_path), rows[:10], {row[KEY]: None for row in rows[10:]})


def test_a_column_without_a_common_type_is_said(command: Command, tmp_path: Path) -> None:
    rows = births(4, 6)
    write(tmp_path / "in" / "0.parquet", "parquet", rows[:2], {"p": (pa.int64(), 7)})
    write(tmp_path / "in" / "1.parquet", "parquet", rows[2:], {"p": (pa.string(), "x")})
    config = write_config(tmp_path, "parquet", str(tmp_path / "in"), output={"columns": [KEY, "p", "predictions"]})
    result = command("batch", "--config", config, "--json")
    assert "column 'p' is int64 in " in result.err
    assert "what does not convert without loss becomes a dead letter" in result.err
    books = books_of(tmp_path)
    assert sorted(books.keys) == [row[KEY] for row in rows[:2]]
    assert sorted(books.letter_keys) == [row[KEY] for row in rows[2:]]


def test_keys_stay_integers_where_a_later_file_has_floats(command: Command, tmp_path: Path) -> None:
    """pandas writes integers with gaps as floats."""
    rows = births(6, 6)
    for number, type in enumerate((pa.int64(), pa.float64())):
        part = [{**row, KEY: number * 3 + i} for i, row in enumerate(rows[number * 3 : number * 3 + 3])]
        schema = ledger.SCHEMA.set(0, pa.field(KEY, type))
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(ledger.table(part, schema), tmp_path / "in" / f"{number}.parquet")
    assert command("batch", "--config", write_config(tmp_path, "parquet", str(tmp_path / "in"))).code == 0
    keys = [row[KEY] for path in shards(tmp_path / "out" / "p") for row in read_shard(path)]
    assert sorted(keys) == list("012345")


def test_of_very_many_files_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_columns, "MOST_FILES", 10)
    found = [FileInfo(f"{i}.csv", 1) for i in range(1001)]
    looked: list[str] = []

    def read(path: str) -> pa.Schema:
        looked.append(path)
        return pa.schema([("a", pa.string())])

    columns = source_columns.look_at(found, read, "csv", None)
    assert len(looked) == 10
    assert {"0.csv", "1000.csv"} < set(looked)
    (note,) = source_columns.notes_on(columns, "csv")
    assert "the columns of 10 of 1,001 files were looked at" in note


@pytest.mark.parametrize(("a", "b"), itertools.combinations(NUMBERS, 2))
def test_a_merged_number_holds_all_values_of_both_or_is_checked(a: pa.DataType, b: pa.DataType) -> None:
    """Casts are safe ones: int64 beyond 2**53 are refused by float64, and become dead letters."""
    type = merged(a, b)
    assert type is not None
    assert type == merged(b, a)
    for side in (a, b):
        if pa.types.is_integer(side):
            low = 0 if pa.types.is_unsigned_integer(side) else -(1 << (side.bit_width - 1))
            high = (1 << side.bit_width) + low - 1
            if pa.types.is_floating(type) and side.bit_width == 64:
                with pytest.raises(pa.ArrowInvalid):
                    pa.array([high], side).cast(type)
                low, high = max(low, -(1 << 53)), 1 << 53
            assert [int(v) for v in pa.array([low, high], side).cast(type).to_pylist()] == [low, high]
        else:
            assert type.bit_width >= side.bit_width


SIMPLE = st.sampled_from(
    [
        *NUMBERS,
        pa.null(),
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.bool_(),
        pa.date32(),
        pa.timestamp("s"),
        pa.timestamp("ns", "UTC"),
        pa.decimal128(9, 2),
        pa.dictionary(pa.int8(), pa.string()),
    ]
)
TYPES = st.recursive(
    SIMPLE,
    lambda inner: st.builds(pa.list_, inner) | st.builds(lambda a, b: pa.struct([("a", a), ("b", b)]), inner, inner),
    max_leaves=4,
)


@given(TYPES, TYPES)
def test_merging_is_symmetric_and_settles(a: pa.DataType, b: pa.DataType) -> None:
    both = merged(a, b)
    assert merged(b, a) == both
    assert merged(a, a) == a
    if both is not None:
        assert merged(both, a) == both
        assert merged(both, b) == both
