"""Record batches become Avro files that this project and other libraries read."""

from __future__ import annotations

import datetime as dt
import decimal
import io
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.avro.reader import AvroReader
from pipelines.formats.avro.writer import AvroWriter
from pipelines.formats.base import FormatError, ReadSpec
from pipelines.rows.origin import Block
from tests.support.avro_files import UTC, everything, write, written

LISTS = st.lists(st.none() | st.floats(width=32, allow_nan=False), max_size=3)


ROW = st.fixed_dictionaries(
    {
        "a": st.none() | st.text(max_size=3),
        "b": st.none() | st.lists(st.none() | LISTS, max_size=3),
        "c": st.none() | st.fixed_dictionaries({"x": st.none() | LISTS, "y": st.none() | st.binary(max_size=2)}),
        "d": st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
        "e": st.none() | st.booleans(),
    }
)


TYPE = pa.schema(
    [
        ("a", pa.string()),
        ("b", pa.list_(pa.list_(pa.float32()))),
        ("c", pa.struct([("x", pa.list_(pa.float32())), ("y", pa.binary())])),
        ("d", pa.int64()),
        ("e", pa.bool_()),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=8), st.integers(0, 3), st.integers(1, 5))
def test_any_rows_are_written_and_read_exactly(rows: list[Any], skip: int, size: int) -> None:
    table = pa.Table.from_pylist(rows, TYPE).slice(skip)
    content = written(table, {}, size)
    assert list(fastavro.reader(io.BytesIO(content))) == rows[skip:]
    found = list(AvroReader(ReadSpec(TYPE)).replay(content, {}, "x"))
    assert [row for block in found if isinstance(block, Block) for row in block.batch.to_pylist()] == rows[skip:]


@pytest.mark.parametrize(
    ("type", "values"),
    [
        (pa.list_(pa.float32()), [[], [], [1.0]]),
        (pa.list_(pa.float32()), [[1.0], [], [None], [2.0, 3.0]]),
        (pa.list_(pa.float32()), [[1.0], None, [2.0]]),
        (pa.list_(pa.list_(pa.float32())), [[[], [None]]]),
        (pa.list_(pa.list_(pa.float32())), [[], [[1.0], []], [[2.0]]]),
        (pa.struct([("x", pa.list_(pa.binary()))]), [{"x": []}, {"x": [b"a"]}, None, {"x": [b"b"]}]),
        (pa.list_(pa.struct([("x", pa.int64())])), [[], [{"x": 1}], [{"x": None}, None]]),
    ],
    ids=str,
)
def test_items_after_an_empty_list_are_their_own(type: pa.DataType, values: list[Any]) -> None:
    table = pa.table({"v": pa.array(values, type), "after": range(len(values))})
    content = written(table, {})
    assert list(fastavro.reader(io.BytesIO(content))) == table.to_pylist()
    (found,) = AvroReader(ReadSpec(table.schema)).replay(content, {}, "x")
    assert isinstance(found, Block)
    assert found.batch.to_pylist() == table.to_pylist()


TABLE = pa.table(
    {
        "key": range(500),
        "text": [None if i % 7 == 0 else f"é{i}" for i in range(500)],
        "raw": pa.array([b"\xff" * (i % 3) for i in range(500)]),
        "flag": [None, True, False, True, None] * 100,
        "f": pa.array([None if i % 3 else i / 7 for i in range(500)], pa.float32()),
        "d": [i / 7 for i in range(500)],
        "v": pa.array([None if i % 5 == 0 else [float(i), None][: i % 3] for i in range(500)], pa.list_(pa.float32())),
        "deep": pa.array([[["a", None], []][: i % 3] for i in range(500)], pa.list_(pa.list_(pa.string()))),
        "day": pa.array([dt.date(2020, 1, 1 + i % 28) for i in range(500)]),
        "at": pa.array([None, dt.datetime(2020, 1, 1, tzinfo=UTC)] * 250, pa.timestamp("us", "UTC")),
        "local": pa.array([dt.datetime(1920, 1, 1)] * 500, pa.timestamp("ms")),
        "time": pa.array([dt.time(1, 2, 3)] * 500, pa.time64("us")),
        "money": pa.array([None, decimal.Decimal("-1.28")] * 250, pa.decimal128(9, 2)),
        "s": pa.array([None, {"x": 1, "y": [1]}] * 250, pa.struct([("x", pa.int32()), ("y", pa.list_(pa.int64()))])),
    }
)


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2"])
def test_writer_round_trip_with_another_library(codec: str) -> None:
    rows = list(fastavro.reader(io.BytesIO(written(TABLE, {"codec": codec}))))
    assert rows == TABLE.to_pylist()


@pytest.mark.parametrize("codec", ["snappy", "zstandard"])
def test_writer_round_trip_with_the_reader(tmp_path: Path, codec: str) -> None:
    file = write(tmp_path / "a.avro", written(TABLE, {"codec": codec}))
    blocks, rejected = everything(AvroReader(ReadSpec(TABLE.schema)), file)
    assert not rejected
    assert pa.Table.from_batches([block.batch for block in blocks]).equals(TABLE)


def test_a_container_without_rows_is_valid() -> None:
    content = written(TABLE.slice(0, 0), {})
    assert list(fastavro.reader(io.BytesIO(content))) == []


def test_writer_refuses_a_bad_batch_before_anything_is_in_the_file() -> None:
    sink = io.BytesIO()
    writer = AvroWriter(sink, pa.schema([("s", pa.string())]), {})
    writer.write(pa.record_batch({"s": ["a"]}))
    before = sink.getvalue()
    with pytest.raises(pa.ArrowInvalid):
        writer.write(pa.record_batch({"s": pa.array([b"\xff"]).view(pa.string())}))
    with pytest.raises(FormatError):
        writer.write(pa.record_batch({"t": ["a"]}))
    assert sink.getvalue() == before


@pytest.mark.parametrize(
    ("type", "expected"),
    [
        (pa.dictionary(pa.int32(), pa.large_string()), pa.string()),
        (pa.int8(), pa.int32()),
        (pa.uint32(), pa.int64()),
        (pa.float16(), pa.float32()),
        (pa.list_(pa.float16(), 3), pa.list_(pa.float32())),
        (pa.timestamp("s", "Europe/Berlin"), pa.timestamp("ms", "UTC")),
        (pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.null(), pa.string()),
        (pa.float32(), pa.float32()),
    ],
)
def test_output_types(type: pa.DataType, expected: pa.DataType) -> None:
    assert AvroWriter.output_type(type) == expected


def test_what_avro_cannot_hold_is_named() -> None:
    with pytest.raises(FormatError, match="union"):
        AvroWriter.output_type(pa.dense_union([pa.field("a", pa.int64()), pa.field("b", pa.string())]))
    with pytest.raises(FormatError, match="a b"):
        AvroWriter(io.BytesIO(), pa.schema([("a b", pa.int64())]), {})
    with pytest.raises(FormatError, match="lzo"):
        AvroWriter(io.BytesIO(), pa.schema([("a", pa.int64())]), {"codec": "lzo"})
