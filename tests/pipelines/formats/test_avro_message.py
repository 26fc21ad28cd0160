"""Single Avro datums become the columns that fastavro reads in them, and nothing else does."""

from __future__ import annotations

import io
import json
import pickle
import random
import sys
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from pipelines.formats import FormatError, ReadSpec
from pipelines.formats.avro import boundaries as our_walk
from pipelines.formats.avro.container import varint
from pipelines.formats.avro.message import AvroMessageReader, parse_schema
from pipelines.rows.origin import Block, RejectedRow
from tests.support import processes
from tests.support.commands import ROOT
from tests.support.message_samples import AVRO_ALL, any_row, datum, mutated, read_datum

LONG = {"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}, {"name": "s", "type": "string"}]}


def reader(schema: Any, framing: str = "none", columns: pa.Schema | None = None) -> AvroMessageReader:
    columns = AvroMessageReader.columns(schema) if columns is None else columns
    return AvroMessageReader(ReadSpec(columns, {"schema": schema, "framing": framing}))


def record(type: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": "v", "type": type}]}


def together(found: AvroMessageReader, payloads: list[bytes]) -> list[dict[str, Any] | None]:
    """The row of each message that could be decoded with others."""
    rows: list[dict[str, Any] | None] = [None] * len(payloads)
    for indices, batch in found.together(pa.array(payloads, pa.large_binary())):
        batch.validate(full=True)
        assert batch.schema.names == found.spec.columns.names
        for row, value in zip(indices.tolist(), batch.to_pylist(), strict=True):
            assert rows[row] is None
            rows[row] = value
    return rows


def alone(found: AvroMessageReader, payload: bytes, format: dict[str, Any] | None = None) -> Any:
    """The row of a replayed message, or why there is none."""
    kept = json.loads(json.dumps(found.format_of(None) if format is None else format))
    (item,) = found.replay(payload, kept, "x")
    if isinstance(item, RejectedRow):
        assert item.payload == payload
        return item.message
    assert isinstance(item, Block)
    (row,) = item.batch.to_pylist()
    return row


def test_values_of_all_types_are_those_of_fastavro() -> None:
    choose = random.Random(1)
    rows = [any_row(choose) for _ in range(500)]
    payloads = [datum(AVRO_ALL, row) for row in rows]
    expected = [read_datum(AVRO_ALL, payload) for payload in payloads]
    found = reader(AVRO_ALL)
    assert together(found, payloads) == expected
    assert [alone(found, payload) for payload in payloads[:9]] == expected[:9]


def test_a_mutated_datum_changes_no_other() -> None:
    choose = random.Random(2)
    found = reader(AVRO_ALL)
    bad = lenient = 0
    for _ in range(25):
        good = [datum(AVRO_ALL, any_row(choose)) for _ in range(200)]
        spoilt = [choose.random() < 0.4 for _ in good]
        payloads = [mutated(choose, each) if broken else each for each, broken in zip(good, spoilt, strict=True)]
        for payload, broken, row in zip(payloads, spoilt, together(found, payloads), strict=True):
            expected = read_datum(AVRO_ALL, payload)
            if row is not None:
                assert repr(row) == repr(expected)
                continue
            assert broken
            bad += 1
            message = alone(found, payload)
            assert isinstance(message, str), payload
            if expected is not None:
                # fastavro takes an int of more than 32 bits, and any byte for a boolean.
                assert "a value that its schema does not allow" in message
                lenient += 1
    assert bad > 1_000 > 50 > lenient


@pytest.mark.parametrize("taken", [1, 3, 9])
def test_a_torn_datum_does_not_take_its_neighbours_bytes(taken: int) -> None:
    """What is cut from one is added to the next: together they have the right number of bytes and of rows."""
    schema = record("string")
    payloads = [datum(schema, {"v": "abcdefghij"}) for _ in range(10)]
    payloads[4] = payloads[4][:-taken]
    payloads[5] = b"j" * taken + payloads[5]
    rows = together(reader(schema), payloads)
    assert rows[4] is None
    assert rows[5] is None
    assert [row for n, row in enumerate(rows) if n not in (4, 5)] == [{"v": "abcdefghij"}] * 8


@pytest.mark.parametrize(
    ("type", "body"),
    [
        ("string", varint(2 << 30) + b"abc"),
        ("bytes", varint(1 << 40) + b"abc"),
        ("bytes", varint((1 << 63) - 1) + b"abc"),
        ("bytes", varint(-5) + b"abc"),
        ("long", b"\xff" * 11),
        ("long", b"\xff" * 9 + b"\x02"),
        ("int", varint(1 << 31)),
        ("boolean", b"\x02"),
        ("double", b"1234567"),
        ({"type": "fixed", "name": "F", "size": 1 << 20}, b"abc"),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, varint(1)),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, varint(-1)),
        (["null", "int"], varint(2)),
        (["null", "int"], varint(-1)),
        ({"type": "array", "items": "int"}, varint(1 << 61) + b"abc\0"),
        ({"type": "array", "items": "double"}, varint(1 << 61) + b"12345678\0"),
        ({"type": "array", "items": "int"}, varint(-(1 << 63)) + b"\x02a\0"),
        ({"type": "array", "items": "int"}, varint(-1) + varint(-1) + b"a\0"),
        ({"type": "array", "items": "int"}, varint(1) + b"a"),
        ({"type": "map", "values": "int"}, varint(1) + varint(1 << 40) + b"a\0"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, varint(40) + b"1" * 40),
        ("string", varint(2) + b"\xff\xff"),
        ("long", b""),
        (["int", "string"], varint(1) + varint(2 << 30) + b"a"),
        (["int", "string"], varint(7)),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bytes_that_are_no_datum_are_rejected_alone(type: Any, body: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    schema = record(type)
    found = reader(schema)
    assert together(found, [body]) == [None]
    assert isinstance(alone(found, body), str)
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("items", "values", "body"),
    [
        ("int", [1, 2, 3], varint(-2) + varint(2) + varint(1) + varint(2) + varint(1) + varint(3) + b"\0"),
        ("double", [0.0, 0.0], varint(1) + bytes(8) + varint(-1) + varint(8) + bytes(8) + b"\0"),
        (["null", "string"], [None, "a"], varint(2) + b"\0" + varint(1) + varint(1) + b"a\0"),
        ("long", [0] * 30_000, varint(30_000) + bytes(30_000) + b"\0"),
    ],
)
def test_lists_in_blocks_and_long_ones(items: Any, values: list[Any], body: bytes) -> None:
    found = reader(record({"type": "array", "items": items}))
    short = datum(found.schema, {"v": values[:1]})
    assert together(found, [short, body, body[:-1], short]) == [
        {"v": values[:1]},
        {"v": values},
        None,
        {"v": values[:1]},
    ]


def test_a_number_may_be_longer_than_it_has_to_be() -> None:
    found = reader(record("long"))
    assert together(found, [b"\x82\x00", b"\x02", b"\x82\x80\x80\x00"]) == [{"v": 1}] * 3


UNIONS = [
    (["null", "int", "double"], [1, None, 2.5], [1.0, None, 2.5]),
    (["int", "string"], [7, "seven"], ["7", "seven"]),
]


@pytest.mark.parametrize(("type", "values", "expected"), UNIONS, ids=str)
def test_types_without_columns_are_decoded_one_by_one(type: Any, values: list[Any], expected: list[Any]) -> None:
    found = reader(record(type))
    payloads = [datum(found.schema, {"v": value}) for value in values]
    assert together(found, [*payloads, b"\xff", payloads[0] + b"\0"]) == [*({"v": v} for v in expected), None, None]
    assert alone(found, payloads[0]) == {"v": expected[0]}
    assert "more bytes" in alone(found, payloads[0] + b"\0")


def test_only_the_columns_wanted() -> None:
    columns = pa.schema([("missing", pa.int64()), ("d", pa.float64())])
    payload = datum(AVRO_ALL, any_row(random.Random(3)))
    found = reader(AVRO_ALL, columns=columns)
    expected = read_datum(AVRO_ALL, payload)
    assert expected is not None
    assert together(pickle.loads(pickle.dumps(found)), [payload]) == [{"missing": None, "d": expected["d"]}]


def framed(framing: str, schema: Any, body: bytes) -> bytes:
    if framing == "single_object":
        sink = io.BytesIO()
        canonical = fastavro.schema.to_parsing_canonical_form(schema)
        fingerprint = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
        sink.write(b"\xc3\x01" + bytes.fromhex(fingerprint))
        return sink.getvalue() + body
    return b"\0\0\0\x01\x02" + body if framing == "confluent" else body


def test_the_fingerprint_is_that_of_the_specification() -> None:
    """CRC-64-AVRO as the specification's own code computes it, least significant byte first."""
    empty, table = 0xC15D213AA4D7A795, []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (empty if byte & 1 else 0)
        table.append(byte)
    crc = empty
    for byte in b'{"name":"R","type":"record","fields":[{"name":"n","type":"long"},{"name":"s","type":"string"}]}':
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    body = datum(LONG, {"n": 1, "s": "a"})
    assert together(reader(LONG, "single_object"), [b"\xc3\x01" + crc.to_bytes(8, "little") + body]) == [
        {"n": 1, "s": "a"}
    ]


@pytest.mark.parametrize("framing", ["none", "single_object", "confluent"])
def test_framing(framing: str) -> None:
    found = reader(LONG, framing)
    rows = [{"n": n, "s": str(n)} for n in range(20)]
    payloads = [framed(framing, LONG, datum(LONG, row)) for row in rows]
    assert together(found, payloads) == rows
    assert alone(found, payloads[3]) == rows[3]


def test_wrong_framing_is_told() -> None:
    single, confluent = reader(LONG, "single_object"), reader(LONG, "confluent")
    body = datum(LONG, {"n": 1, "s": "a"})
    other = framed("single_object", record("long"), body)
    assert together(single, [other, body, b"\xc3\x01", b""]) == [None] * 4
    assert "fingerprint" in alone(single, other)
    assert "source.schema" in alone(single, other)
    assert "C3 01" in alone(single, body)
    assert "C3 01" in alone(single, b"\xc3\x01")
    assert together(confluent, [b"\x01" + body, b"\0\0\0", b""]) == [None] * 3
    assert "Confluent" in alone(confluent, b"\0\0\0")
    assert "ends before" in alone(confluent, b"\0\0\0\0\0")


def test_a_letter_is_replayed_with_its_own_schema_and_else_with_the_present_one() -> None:
    earlier, payload = reader(LONG), datum(LONG, {"n": 7, "s": "a"})
    swapped = {**LONG, "fields": LONG["fields"][::-1]}  # type: ignore[index]
    present = reader(swapped)
    assert isinstance(alone(present, payload), str)
    assert alone(present, payload, earlier.format_of(None)) == {"n": 7, "s": "a"}
    of_present = datum(swapped, {"n": 7, "s": "abcdef"})
    assert isinstance(alone(earlier, of_present), str)
    assert alone(present, of_present, earlier.format_of(None)) == {"n": 7, "s": "abcdef"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'"string"', "not a record with fields"),
        (b'{"type": "record", "name": "R", "fields": []}', "not a record with fields"),
        (b'{"type": "record", "name": "R", "fields": [{"name": "v", "type": "nothing"}]}', "not valid"),
        (b'{"type": "record", "name": "R", "fields": [{"name": "v", "type": ["null", "R"]}]}', "contains itself"),
        (
            b'{"type": "record", "name": "R", "fields": [{"name": "v", "type": {"type": "fixed", "name": "F", '
            b'"size": 99999999999}}]}',
            "not valid",
        ),
    ],
)
def test_a_schema_that_cannot_be_used_is_told(text: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_schema(text)


def test_a_schema_without_a_fingerprint_is_told() -> None:
    schema = record({"type": "enum", "name": "E", "symbols": ["not a symbol"]})
    with pytest.raises(FormatError, match="is not valid"):
        reader(schema, "single_object")


def test_many_items_do_not_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too long to be walked in columns is read by fastavro."""
    monkeypatch.setattr(our_walk, "_STEPS", 3)
    found = reader(record({"type": "array", "items": "string"}))
    values = [{"v": ["a"] * n} for n in range(12)]
    payloads = [datum(found.schema, value) for value in values]
    assert together(found, [*payloads, payloads[9][:-1]]) == [*values, None]


def test_memory_is_bounded_by_what_there_is() -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
import pyarrow as pa
from pipelines.formats import ReadSpec
from pipelines.formats.avro.container import varint
from pipelines.formats.avro.message import AvroMessageReader
lists = {"type": "array", "items": "double"}, {"type": "map", "values": ["null", "int"]}
for type in ("string", *lists, ["int", "string"]):
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": type}]}
    reader = AvroMessageReader(ReadSpec(AvroMessageReader.columns(schema), {"schema": schema, "framing": "none"}))
    bombs = [varint(size) + b"abc" for size in (2 << 30, 1 << 40, 1 << 62, -(1 << 40))]
    bombs += [varint(1) + bomb for bomb in bombs]
    assert reader.together(pa.array(bombs, pa.large_binary())) == [], type
"""
    processes.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_slices_of_a_pull() -> None:
    found = reader(LONG)
    rows = [{"n": n, "s": str(n)} for n in range(9)]
    payloads = pa.array([datum(LONG, row) for row in rows], pa.large_binary()).slice(4, 3)
    [(indices, batch)] = found.together(payloads)
    assert batch.to_pylist() == rows[4:7]
    assert np.array_equal(indices, [0, 1, 2])
