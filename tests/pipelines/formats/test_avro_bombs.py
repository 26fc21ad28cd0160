"""Small files and schemas of Avro that would take all memory, all time or the process are refused or dead letters."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from pipelines.formats import FormatError, ReadSpec, Split, limits
from pipelines.formats.avro import container
from pipelines.formats.avro import shape as our_shape
from pipelines.formats.avro.container import varint
from pipelines.formats.avro.message import AvroMessageReader, parse_schema
from pipelines.formats.avro.reader import AvroReader
from pipelines.formats.avro.rows import Rows
from pipelines.formats.avro.schema import resolve
from pipelines.rows.origin import Block, RejectedRow
from tests.support import processes
from tests.support.avro_bombs import BOMBS, MIB, SYNC, TREE, WIDE, array, document, record
from tests.support.commands import ROOT


def read(content: bytes) -> tuple[list[Block], list[RejectedRow]]:
    try:
        node = resolve(container.read_header(io.BytesIO(content), "x").schema, "x")
        columns = pa.schema([(name, child.type) for name, child in node.children.items()])
    except FormatError:
        columns = pa.schema([])
    found = list(AvroReader(ReadSpec(columns)).replay(content, {}, "x"))
    return [i for i in found if isinstance(i, Block)], [i for i in found if isinstance(i, RejectedRow)]


def messages(schema: Any) -> AvroMessageReader:
    return AvroMessageReader(ReadSpec(AvroMessageReader.columns(schema), {"schema": schema, "framing": "none"}))


def twice_a_level(levels: int) -> dict[str, Any]:
    """A schema whose named types are used twice a level, so that it has 2^levels types when written out."""
    inner: Any = "long"
    for level in range(levels):
        first = {"name": "a", "type": inner}
        again = inner["name"] if isinstance(inner, dict) else inner
        inner = {"type": "record", "name": f"r{level}", "fields": [first, {"name": "b", "type": again}]}
    return inner


def nested(levels: int, kind: str) -> dict[str, Any]:
    inner: Any = "long"
    for level in range(levels):
        inner = {
            "array": {"type": "array", "items": inner},
            "map": {"type": "map", "values": inner},
            "record": {"type": "record", "name": f"r{level}", "fields": [{"name": "x", "type": inner}]},
        }[kind]
    return record(inner)


REFUSED = [
    (twice_a_level(30), "more than 65,536 types"),
    (nested(100, "array"), "nested deeper than"),
    (nested(100, "map"), "nested deeper than"),
    (nested(30, "record") | {"doc": json.loads("[" * 300 + "]" * 300)}, "nested deeper than"),
    (record("null"), "have no bytes"),
    (record({"type": "record", "name": "Z", "fields": []}), "have no bytes"),
    (record({"type": "fixed", "name": "F", "size": 0}), "have no bytes"),
    ({"type": "record", "name": "R", "fields": [{"name": "x", "type": "R"}]}, "no row has an end"),
    (record(["null", {"type": "fixed", "name": "F", "size": 1 << 30}]), "even where it is empty"),
    (record({"type": "enum", "name": "E", "symbols": ["x" * 100_000]}), "name of 100,000 characters"),
    (record(array({"type": "record", "name": "Z", "fields": []})), "items without bytes"),
]


@pytest.mark.parametrize(("schema", "problem"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_schema_beyond_a_bound_is_refused_by_its_rule(tmp_path: Path, schema: Any, problem: str) -> None:
    file = tmp_path / "a.avro"
    file.write_bytes(document(schema, "null", (1 << 20, b"abc")))
    with pytest.raises(FormatError, match=problem) as told:
        AvroReader.schema(str(file), {})
    assert str(file) in str(told.value)
    reader = AvroReader(ReadSpec(pa.schema([])))
    (rejected,) = [item for split in reader.splits(str(file), file.stat().st_size, MIB) for item in reader.read(split)]
    assert isinstance(rejected, RejectedRow)
    assert problem in rejected.message
    with pytest.raises(FormatError, match=problem):
        parse_schema(json.dumps(schema).encode())


def test_a_schema_of_many_bytes_is_refused() -> None:
    with pytest.raises(FormatError, match="may have at most 4,194,304"):
        parse_schema(json.dumps(record("long") | {"doc": "x" * (5 * MIB)}).encode())
    with pytest.raises(FormatError, match="deeper than"):
        parse_schema(b"[" * 100_000)


def test_a_header_of_many_entries_is_refused_before_they_are_read() -> None:
    content = container.MAGIC + varint(1 << 40) + b"\0\0" * 100_000
    (rejected,) = read(content)[1]
    assert "more than 1,000 entries" in rejected.message


def test_large_schemas_are_read() -> None:
    fields = [{"name": f"c{i}", "type": ["null", "double"], "doc": "d" * 100} for i in range(10_000)]
    assert len(resolve({"type": "record", "name": "R", "fields": fields}, "x").children) == 10_000
    assert resolve(twice_a_level(12), "x").columnar


@pytest.mark.parametrize(
    ("schema", "depth"),
    [
        (TREE, 100_000),
        (record("long", TREE), 100_000),
        (record(array(["null", TREE])), 100_000),
        (record("long", TREE), 1_500_000),
    ],
    ids=["row", "column", "items", "without end"],
)
def test_a_value_that_is_nested_too_deep_is_a_dead_letter_alone(schema: Any, depth: int) -> None:
    begin, end = (b"", b"")
    if schema is not TREE:
        begin, end = (b"\0", b"") if schema["fields"][0]["type"] == "long" else (varint(1) + varint(1), b"\0")
    deep, good = (begin + b"\x02" * levels + b"\0" + end for levels in (depth, 10))
    blocks, (rejected,) = read(document(schema, "null", (3, good + deep + good), (1, good)))
    assert "more than 200 records" in rejected.message
    rows = sum(block.batch.num_rows for block in blocks)
    # Where its end is not found, the rows after it in its block cannot be told apart.
    assert (rows, rejected.position) == ((3, 1) if depth < 1 << 20 else (2, 1))
    assert "more than 200 records" in read(rejected.payload)[1][0].message


def test_values_as_deep_as_allowed_are_read() -> None:
    data = b"\x02" * (limits.MAX_VALUE_DEPTH - 1) + b"\0"
    (block,), rejected = read(document(TREE, "null", (1, data)))
    assert not rejected
    text = block.batch.column("next")[0].as_py()
    assert text.count("{") == limits.MAX_VALUE_DEPTH - 1


@pytest.mark.parametrize(
    ("schema", "rows", "data"),
    [
        (record("bytes"), 1, varint(2 << 30) + b"abc"),
        (record("bytes"), 1, varint(-5) + b"abc"),
        (record(array("int")), 1, varint(1 << 61) + b"abc\0"),
        (record(array("int")), 1, varint(-(1 << 63)) + b"\x02a\0"),
        (record(array(["string", "int"])), 1, varint(1 << 61) + b"abc\0"),
        (TREE, 1, b"\x02" * 10),
        (TREE, 1, varint(-1) + b"\0"),
        (record(array(TREE)), 1, varint(1 << 61) + b"\0"),
        (record(array(TREE)), 1, varint(-1) + varint(-1) + b"\0\0"),
        (record({"type": "array", "items": ["null", TREE]}), 1, varint(1) + varint(9)),
        (record("long"), 1 << 20, b"\0\0\0"),
        (record("long"), 1 << 40, b"\0\0\0"),
        (record("long", "long"), 2, b"\0\0\0"),
        (record("long"), -1, b"\0\0\0"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_block_that_says_what_cannot_be_is_one_dead_letter(schema: Any, rows: int, data: bytes) -> None:
    good = b"\0" * (2 if schema == record("long", "long") else 1)
    content = document(schema, "null", (rows, data), (1, good))
    blocks, (rejected,) = read(content)
    assert sum(block.batch.num_rows for block in blocks) == 1
    assert "cannot be read" in rejected.message
    assert data in rejected.payload


def test_markers_without_blocks_are_one_dead_letter() -> None:
    content = container.header_bytes(record("long"), "null", SYNC)
    tail = container.block_bytes(1, b"\x02", SYNC)
    (block,), (rejected,) = read(content + SYNC * 100_000 + tail)
    assert block.batch.to_pylist() == [{"f0": 1}]
    assert rejected.payload == content + SYNC * 100_000


def test_dead_letters_of_a_split_keep_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.formats.avro.decoder.MAX_PAYLOAD_BYTES", 100_000)
    schema = record("long") | {"doc": "x" * 10_000}
    _, rejected = read(document(schema, "deflate", *[(5, b"junk")] * 50))
    assert len(rejected) == 50
    assert sum(len(dead_letter.payload) for dead_letter in rejected) < 120_000
    assert [dead_letter.truncated for dead_letter in rejected] == [False] * 10 + [True] * 40


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts blocks into many parts."""
    for module, name, value in (
        ("avro.decoder", "DECODED_BYTES", 20_000),
        ("avro.rows", "DECODED_BYTES", 20_000),
        ("avro.shape", "DECODED_BYTES", 20_000),
        ("avro.rows", "_PART_BYTES", 5_000),
        ("avro.rows", "_SEGMENT_BYTES", 3_000),
        ("avro.message", "DECODED_BYTES", 20_000),
        ("message", "DECODED_BYTES", 20_000),
    ):
        monkeypatch.setattr(f"pipelines.formats.{module}.{name}", value)


@pytest.mark.parametrize("type", ["columns", "objects", "recursive"])
def test_a_block_that_is_cut_between_rows_has_the_same_rows(tmp_path: Path, little_memory: None, type: str) -> None:
    tree = {**TREE, "fields": [{"name": "v", "type": "int"}, *TREE["fields"]]}  # type: ignore[misc]
    kind: Any = {"columns": "long", "objects": ["null", "int", "string"], "recursive": ["null", tree]}[type]
    schema = record("long", kind, array("string"), "string")
    large = {"f0": -1, "f1": 0 if type == "columns" else None, "f2": ["x"] * 3000, "f3": ""}
    rows = [
        {"f0": i, "f1": i if type != "recursive" else None, "f2": ["a"] * (i % 7), "f3": "b" * (i % 50)}
        for i in range(500)
    ]
    rows[200:200] = [large]
    sink = io.BytesIO()
    fastavro.writer(sink, schema, rows, sync_interval=1 << 30)
    file = tmp_path / "a.avro"
    file.write_bytes(sink.getvalue())
    reader = AvroReader(ReadSpec(pa.schema([("f0", pa.int64()), ("f3", pa.string())])))
    found = list(reader.read(Split(str(file), *bounds(sink.getvalue()), 1, (file.stat().st_size, 0))))
    blocks = [item for item in found if isinstance(item, Block)]
    (rejected,) = [item for item in found if isinstance(item, RejectedRow)]
    assert len(blocks) > 3
    assert [row["f0"] for block in blocks for row in block.batch.to_pylist()] == list(range(500))
    assert [p for block in blocks for p in block.origin.positions().tolist()] == [i for i in range(501) if i != 200]
    assert (rejected.position, rejected.truncated) == (200, False)
    assert "row 200 of the block" in rejected.message
    assert list(fastavro.reader(io.BytesIO(rejected.payload))) == [large]
    last = blocks[-1]
    assert list(fastavro.reader(io.BytesIO(last.origin.payload(0)))) == [rows[501 - last.batch.num_rows]]
    assert list(fastavro.reader(io.BytesIO(last.origin.payload(last.batch.num_rows - 1)))) == [rows[500]]


def bounds(content: bytes) -> tuple[int, int]:
    return len(container.read_header(io.BytesIO(content), "x").raw), len(content)


@pytest.mark.parametrize("columnar", [True, False])
def test_messages_are_decoded_in_runs_and_large_ones_are_rejected(little_memory: None, columnar: bool) -> None:
    schema = record("long" if columnar else ["null", "int", "string"], array("string"))
    found = messages(schema)
    start = b"\x02" if columnar else varint(1) + varint(1)
    good, large = start + varint(2) + b"\0\0\0", start + varint(3000) + bytes(3000) + b"\0"
    payloads = pa.array([good] * 300 + [large] + [good] * 300, pa.large_binary())
    windows = found.windows(payloads)
    assert len(windows) > 3
    assert [row for start, end in windows for row in range(start, end)] == list(range(601))
    rows = [row for indices, _ in found.together(payloads) for row in indices.tolist()]
    assert sorted(rows) == [row for row in range(601) if row != 300]
    (rejected,) = found.replay(large, {}, "x")
    assert isinstance(rejected, RejectedRow)
    assert "may take 20,000 at most" in rejected.message


def test_memory_is_estimated_from_above() -> None:
    """What values take in columns is never more than the estimate."""
    for type, data in (
        ("long", varint(9) * 1000),
        (["null", "double"], bytes(1000)),
        ("bytes", (varint(3) + b"abc") * 1000),
        (["null", WIDE], bytes(1000)),
        (array(["null", WIDE]), (varint(9) + bytes(10)) * 1000),
        (array("string"), (varint(9) + bytes(10)) * 1000),
    ):
        (block,), _ = read(document(record(type), "null", (1000, data)))
        layout = Rows(resolve(record(type), "x")).layout
        assert block.batch.nbytes <= layout.memory(1000, len(data))
        assert layout.measure(data, 0)[1] <= layout.memory(1000, len(data))


def test_walking_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(our_shape, "_MAX_STEPS", 1000)
    layout = our_shape.Layout(record(array("bytes")), True)
    with pytest.raises(our_shape.TooLargeError) as told:
        layout.measure(varint(5000) + bytes(5000) + b"\0", 0)
    assert told.value.end is None


def test_bombs_take_a_bounded_memory() -> None:
    code = "import json; from tests.support.avro_bombs import measured; print(json.dumps(measured()))"
    done = processes.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=400, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    rows = {"many": 12, "rows": 100_000, "nulls": 50_000}
    dead_letters = {name: 0 if name in rows else 2 if name == "deflate" else 1 for name in BOMBS}
    assert {name: counts[1:] for name, counts in found.items()} == {
        name: [rows.get(name, 0), dead_letters[name]] for name in BOMBS
    }
    assert {name: peak >> 20 for name, (peak, *_) in found.items() if peak > 1 << 30} == {}
