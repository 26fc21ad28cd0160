from __future__ import annotations

import datetime as dt
import decimal
import io
import pickle
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.avro import container
from pipelines.formats.avro.reader import AvroReader
from pipelines.formats.base import FormatError, ReadSpec
from pipelines.rows.origin import Block, RejectedRow
from tests.support.avro_files import UTC, everything, run, write, written

KEY = {"name": "key", "type": "long"}
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "birth",
    "fields": [
        {"name": "unused", "type": ["null", "string"]},
        KEY,
        {"name": "name", "type": ["string", "null"]},
        {"name": "v", "type": {"type": "array", "items": "float"}},
    ],
}
COLUMNS = pa.schema([("name", pa.string()), ("key", pa.int64()), ("v", pa.list_(pa.float32()))])
ROWS = [
    {"unused": f"u{i}", "key": i, "name": None if i % 7 == 0 else f"n{i % 5}", "v": [float(i)] * (i % 3)}
    for i in range(1000)
]


def encoded(schema: Any = SCHEMA, rows: list[Any] = ROWS, codec: str = "null", interval: int = 600) -> bytes:
    sink = io.BytesIO()
    fastavro.writer(sink, schema, rows, codec=codec, sync_interval=interval)
    return sink.getvalue()


def keys(blocks: list[Block]) -> list[int]:
    return [key for block in blocks for key in block.batch.column("key").to_pylist()]


def blocks_of(content: bytes) -> list[container.Piece]:
    file = io.BytesIO(content)
    header = container.read_header(file, "test")
    return list(container.pieces(file, header.sync, len(header.raw), len(content), len(content)))


@pytest.mark.parametrize("codec", ["null", "deflate", "zstandard", "bzip2", "xz", "snappy"])
def test_rows_of_every_codec_come_out_as_they_were_written(tmp_path: Path, codec: str) -> None:
    # fastavro has these two only with packages that we do not need.
    repack = codec in ("snappy", "zstandard")
    content = encoded(codec="null" if repack else codec)
    if repack:
        sync = container.read_header(io.BytesIO(content), "test").sync
        packed = [
            container.block_bytes(p.rows, container.compress(codec, content[slice(*p.data)]), sync)
            for p in blocks_of(content)
        ]
        content = container.header_bytes(SCHEMA, codec, sync) + b"".join(packed)
    blocks, rejected = everything(AvroReader(ReadSpec(COLUMNS)), write(tmp_path / "a.avro", content))
    assert not rejected
    assert [row for block in blocks for row in block.batch.to_pylist()] == [
        {name: row[name] for name in COLUMNS.names} for row in ROWS
    ]
    assert all(block.batch.schema.equals(COLUMNS) for block in blocks)
    assert [p for block in blocks for p in block.origin.positions().tolist()] == list(range(1000))


def test_schema_and_sample(tmp_path: Path) -> None:
    file = write(tmp_path / "a.avro", encoded())
    assert AvroReader.schema(file, {}).names == ["unused", "key", "name", "v"]
    assert AvroReader.sample(file, {}, 7).to_pylist() == ROWS[:7]
    assert AvroReader.sample(write(tmp_path / "b.avro", encoded(rows=[])), {}, 7).num_rows == 0


ENUM = {"type": "enum", "name": "e", "symbols": ["x", "y"]}
POINT = {"type": "record", "name": "p", "fields": [{"name": "x", "type": "int"}, {"name": "e", "type": ENUM}]}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2}
TREE = {
    "type": "record",
    "name": "tree",
    "fields": [{"name": "v", "type": "int"}, {"name": "left", "type": ["null", "tree"]}],
}


@pytest.mark.parametrize(
    ("type", "values", "expected"),
    [
        ("boolean", [True, False], pa.bool_()),
        ("bytes", [b"\xff", b""], pa.binary()),
        (["null", "bytes"], [b"\xff", None], pa.binary()),
        ("double", [1e300, -0.0], pa.float64()),
        (ENUM, ["x", "y", "x"], pa.dictionary(pa.int32(), pa.string())),
        (["null", ENUM], [None, "y", None], pa.dictionary(pa.int32(), pa.string())),
        ({"type": "fixed", "name": "f", "size": 3}, [b"abc", b"def"], pa.binary(3)),
        (["null", POINT], [{"x": 1, "e": "y"}, None], None),
        ({"type": "array", "items": ["null", "string"]}, [["a", None], []], pa.list_(pa.string())),
        (["null", {"type": "array", "items": "string"}], [None, ["a"], []], pa.list_(pa.string())),
        (
            {"type": "array", "items": {"type": "array", "items": "float"}},
            [[[1.5], [], [2.5, 3.5]], []],
            pa.list_(pa.list_(pa.float32())),
        ),
        ({"type": "int", "logicalType": "date"}, [dt.date(2020, 1, 2)], pa.date32()),
        ({"type": "int", "logicalType": "time-millis"}, [dt.time(1, 2, 3, 4000)], pa.time32("ms")),
        (["null", {"type": "long", "logicalType": "time-micros"}], [None, dt.time(1)], pa.time64("us")),
        (
            {"type": "long", "logicalType": "timestamp-micros"},
            [dt.datetime(2020, 1, 2, 3, 4, 5, 6, UTC)],
            pa.timestamp("us", "UTC"),
        ),
        (
            {"type": "long", "logicalType": "local-timestamp-millis"},
            [dt.datetime(1920, 1, 2, 3)],
            pa.timestamp("ms"),
        ),
        (
            ["null", DECIMAL],
            [
                decimal.Decimal("-1.28"),
                None,
                decimal.Decimal("123456789012345678.90"),
                decimal.Decimal("0.00"),
            ],
            pa.decimal128(30, 2),
        ),
        ({"type": "string", "logicalType": "uuid"}, ["a60f52ef-efcc-443e-9efd-35f1cad5971d"], pa.string()),
        (["string"], ["a", "b"], pa.string()),
        (["int", "double", "null"], [1, 2.5, None], pa.float64()),
        ("null", [None, None], pa.null()),
    ],
)
def test_types(tmp_path: Path, type: Any, values: list[Any], expected: pa.DataType | None) -> None:
    schema = {"type": "record", "name": "r", "fields": [{"name": "a", "type": type}, KEY]}
    content = encoded(schema, [{"a": value, "key": i} for i, value in enumerate(values)])
    file = write(tmp_path / "a.avro", content)
    batch = AvroReader.sample(file, {}, 100)
    assert batch.column("a").to_pylist() == values
    assert batch.column("key").to_pylist() == list(range(len(values)))
    if expected is not None:
        assert AvroReader.schema(file, {}).field("a").type == batch.schema.field("a").type == expected


@pytest.mark.parametrize(
    ("type", "values", "texts"),
    [
        (["null", "string", "int"], ["a", 1, None], ["a", "1", None]),
        (TREE, [{"v": 1, "left": {"v": 2, "left": None}}], ['{"v": 1, "left": {"v": 2, "left": null}}']),
        ({"type": "array", "items": ["string", "int"]}, [["a", 1]], ['["a", 1]']),
    ],
)
def test_what_arrow_has_no_type_for_becomes_text(
    tmp_path: Path, type: Any, values: list[Any], texts: list[str]
) -> None:
    schema = {"type": "record", "name": "r", "fields": [{"name": "a", "type": type}, KEY]}
    content = encoded(schema, [{"a": value, "key": i} for i, value in enumerate(values)])
    assert AvroReader.sample(write(tmp_path / "a.avro", content), {}, 9).column("a").to_pylist() == texts


def test_maps_become_lists_of_pairs(tmp_path: Path) -> None:
    schema = {
        "type": "record",
        "name": "r",
        "fields": [{"name": "a", "type": {"type": "map", "values": ["null", "int"]}}],
    }
    content = encoded(schema, [{"a": {"k": 1, "l": None}}, {"a": {}}])
    batch = AvroReader.sample(write(tmp_path / "a.avro", content), {}, 9)
    pairs = [{"key": "k", "value": 1}, {"key": "l", "value": None}]
    assert batch.column("a").to_pylist() == [pairs, []]


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("split_bytes", [1, 700, 5000, 1 << 30])
def test_splits_cover_the_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split_bytes: int, remote: bool
) -> None:
    for module in ("reader", "origin"):
        monkeypatch.setattr(f"pipelines.formats.avro.{module}.is_remote", lambda path: remote)
    content = encoded()
    file = write(tmp_path / "a.avro", content)
    reader = pickle.loads(pickle.dumps(AvroReader(ReadSpec(COLUMNS))))
    splits = reader.splits(file, len(content), split_bytes)
    if split_bytes in (1, 1 << 30):
        assert len(splits) == (len(blocks_of(content)) if split_bytes == 1 else 1)
    assert splits[-1].end == len(content)
    assert all(a.end == b.start for a, b in zip(splits, splits[1:], strict=False))
    blocks, rejected = run(reader, splits)
    assert not rejected
    assert sorted(keys(blocks)) == list(range(1000))
    positions = [p for block in blocks for p in block.origin.positions().tolist()]
    assert len(set(positions)) == 1000
    if not remote:
        assert positions == keys(blocks)
    elif split_bytes == 1:
        one = run(reader, reader.splits(file, len(content), 1 << 30))[0]
        assert positions == [p for block in one for p in block.origin.positions().tolist()]


def test_invalid_text_rejects_its_row_alone(tmp_path: Path) -> None:
    fields = [f if f["name"] != "name" else {"name": "name", "type": "bytes"} for f in SCHEMA["fields"]]
    rows = [{**row, "name": b"\xff" if row["key"] in (3, 777) else b"ok"} for row in ROWS]
    content = encoded({**SCHEMA, "fields": fields}, rows)
    # The same bytes, under a schema that says text.
    old = container.read_header(io.BytesIO(content), "test")
    text = [f if f["name"] != "name" else {"name": "name", "type": "string"} for f in SCHEMA["fields"]]
    header = container.header_bytes({**SCHEMA, "fields": text}, "null", old.sync)
    file = write(tmp_path / "a.avro", header + content[len(old.raw) :])
    blocks, rejected = everything(AvroReader(ReadSpec(COLUMNS)), file)
    assert keys(blocks) == [i for i in range(1000) if i not in (3, 777)]
    assert [r.position for r in rejected] == [3, 777]
    assert [p for block in blocks for p in block.origin.positions().tolist()] == keys(blocks)
    assert blocks[0].origin.payload(3) != blocks[0].origin.payload(4)
    (again,) = AvroReader(ReadSpec(COLUMNS)).replay(rejected[1].payload, {}, "x")
    assert isinstance(again, RejectedRow)
    assert 'column "name"' in again.message


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_a_payload_is_a_document_of_one_row_that_replays(tmp_path: Path, codec: str) -> None:
    file = write(tmp_path / "a.avro", encoded(codec=codec))
    reader = AvroReader(ReadSpec(COLUMNS))
    blocks, _ = everything(reader, file)
    origin = pickle.loads(pickle.dumps(blocks[0].origin))
    payload = origin.payload(611)
    assert list(fastavro.reader(io.BytesIO(payload))) == [ROWS[611]]
    (again,) = reader.replay(payload, origin.format, "dead letter")
    assert isinstance(again, Block)
    assert again.batch.to_pylist() == blocks[0].batch.slice(611, 1).to_pylist()
    assert again.origin.payload(0) == payload
    Path(file).unlink()
    (gone,) = reader.replay(blocks[0].origin.payload(5), origin.format, "dead letter")
    assert isinstance(gone, Block)
    assert gone.batch.to_pylist() == blocks[0].batch.slice(5, 1).to_pylist()


def test_a_file_without_bytes_or_without_blocks_has_no_rows(tmp_path: Path) -> None:
    reader = AvroReader(ReadSpec(COLUMNS))
    file = write(tmp_path / "a.avro", b"")
    assert everything(reader, file) == ([], [])
    assert AvroReader.schema(file, {}) == pa.schema([])
    assert everything(reader, write(tmp_path / "b.avro", encoded(rows=[]))) == ([], [])


@pytest.mark.parametrize("content", [b"Obj", b"junk" * 100, b"Obj\x01" + b"\xff" * 40, encoded()[:60]])
def test_a_file_without_a_header_is_one_dead_letter(tmp_path: Path, content: bytes) -> None:
    file = write(tmp_path / "a.avro", content)
    blocks, (rejected,) = everything(AvroReader(ReadSpec(COLUMNS)), file)
    assert not blocks
    assert rejected.payload == content
    assert file in rejected.message
    with pytest.raises(FormatError, match="a.avro"):
        AvroReader.schema(file, {})


def damaged(kind: str, codec: str) -> tuple[bytes, container.Piece]:
    content = bytearray(encoded(codec=codec))
    pieces = blocks_of(bytes(content))
    hurt = pieces[5]
    if kind == "marker":
        content[hurt.end - 16 : hurt.end] = b"\0" * 16
    elif kind == "content":
        content[hurt.data[0] : hurt.data[1]] = b"\xff" * (hurt.data[1] - hurt.data[0])
    elif kind == "length":
        content[hurt.start : hurt.data[0]] = b"\xff" * (hurt.data[0] - hurt.start)
    elif kind == "truncated":
        hurt = pieces[-1]
        del content[hurt.end - 20 :]
    return bytes(content), hurt


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("codec", ["null", "deflate"])
@pytest.mark.parametrize("kind", ["content", "length", "marker", "truncated"])
def test_a_damaged_block_is_rejected_and_its_neighbours_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, codec: str, remote: bool
) -> None:
    for module in ("reader", "origin"):
        monkeypatch.setattr(f"pipelines.formats.avro.{module}.is_remote", lambda path: remote)
    content, hurt = damaged(kind, codec)
    file = write(tmp_path / "a.avro", content)
    reader = AvroReader(ReadSpec(COLUMNS))
    for split_bytes in (1, 1 << 20):
        blocks, rejected = run(reader, reader.splits(file, len(content), split_bytes))
        good = keys(blocks)
        # Without its marker a block cannot be told from the next one: both are one damaged stretch.
        lost = [i for i in range(1000) if i not in set(good)]
        assert len(good) == len(set(good))
        assert hurt.rows <= len(lost) <= (2 if kind == "marker" else 1) * hurt.rows + 20
        assert sum(row.rows for row in rejected) == (1 if kind == "length" else hurt.rows)
        assert content[hurt.start : hurt.end] in rejected[0].payload
        assert f"the block of {1 if kind == 'length' else hurt.rows} rows at byte {hurt.start}" in rejected[0].message
        again = list(reader.replay(rejected[0].payload, {}, "again"))
        assert all(isinstance(item, RejectedRow) for item in again)


@pytest.mark.parametrize("codec", ["deflate", "snappy", "zstandard", "bzip2", "xz"])
def test_a_decompression_bomb_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    table = pa.table({"key": [1], "name": ["x" * 300_000]})
    content = (
        written(table, {"codec": codec})
        if codec != "xz"
        else encoded(rows=[{**ROWS[1], "unused": "x" * 300_000}], codec="xz")
    )
    file = write(tmp_path / "a.avro", content)
    monkeypatch.setattr(container, "MAX_BLOCK_BYTES", 100_000)
    blocks, (rejected,) = everything(AvroReader(ReadSpec(COLUMNS)), file)
    assert not blocks
    assert codec in rejected.message


def test_items_without_bytes_are_refused(tmp_path: Path) -> None:
    empty = {"type": "record", "name": "z", "fields": []}
    schema = {
        "type": "record",
        "name": "r",
        "fields": [{"name": "a", "type": {"type": "array", "items": empty}}],
    }
    bomb = container.block_bytes(1, container.varint(1 << 40) + b"\0", b"s" * 16)
    content = container.header_bytes(schema, "null", b"s" * 16) + bomb
    blocks, (rejected,) = everything(AvroReader(ReadSpec(COLUMNS)), write(tmp_path / "a.avro", content))
    assert not blocks
    assert "without bytes" in rejected.message


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_corruption_raises(data: st.DataObject) -> None:
    content = bytearray(encoded(rows=ROWS[:50], codec=data.draw(st.sampled_from(["null", "deflate"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    for item in AvroReader(ReadSpec(COLUMNS)).replay(bytes(content), {}, "x"):
        if isinstance(item, Block):
            item.batch.validate(full=True)
            assert item.origin.payload(0)
