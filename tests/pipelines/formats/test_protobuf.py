"""Protobuf messages become the columns that Google's library reads in them, and nothing else does."""

from __future__ import annotations

import json
import pickle
import random
import sys
from typing import Any

import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2

from pipelines.formats import FormatError, ReadSpec
from pipelines.formats.protobuf.descriptor import MessageType, UnknownMessageError
from pipelines.formats.protobuf.message import ProtobufReader
from pipelines.rows.origin import Block, RejectedRow
from tests.support import processes
from tests.support.commands import ROOT
from tests.support.message_samples import any_message, descriptors, message_class, mutated, read_message
from tests.support.protobuf_reading import reader


def together(found: ProtobufReader, payloads: list[bytes]) -> list[dict[str, Any] | None]:
    """The row of each message that could be decoded with others; good ones around them make it many."""
    rows: list[dict[str, Any] | None] = [None] * len(payloads)
    for indices, batch in found.together(pa.array(payloads, pa.large_binary())):
        batch.validate(full=True)
        assert batch.schema.names == found.spec.columns.names
        for row, value in zip(indices.tolist(), comparable(batch), strict=True):
            assert rows[row] is None
            rows[row] = value
    return rows


def comparable(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    columns = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in batch.columns]
    rows: list[dict[str, Any]] = pa.RecordBatch.from_arrays(columns, batch.schema.names).to_pylist()
    return [{**row, "counts": sorted(row["counts"], key=json.dumps)} if "counts" in row else row for row in rows]


def alone(found: ProtobufReader, payload: bytes) -> Any:
    """The row of a replayed message, or why there is none."""
    (item,) = found.replay(payload, json.loads(json.dumps(found.format_of(None))), "x")
    if isinstance(item, RejectedRow):
        assert item.payload == payload
        return item.message
    assert isinstance(item, Block)
    (row,) = comparable(item.batch)
    return row


def test_values_of_all_types_are_those_of_googles_library() -> None:
    choose = random.Random(1)
    payloads = [any_message(choose).SerializeToString() for _ in range(500)]
    expected = [read_message("All", payload) for payload in payloads]
    found = reader("All")
    assert together(found, payloads) == expected
    assert [alone(found, payload) for payload in payloads[:9]] == expected[:9]


def test_what_is_missing_is_a_default_or_null() -> None:
    row = alone(reader("All"), b"")
    assert (row["a_int32"], row["a_string"], row["a_bool"], row["kind"]) == (0, "", False, "UNKNOWN")
    assert (row["maybe"], row["perhaps"], row["some"], row["at"], row["when"], row["wrapped"]) == (None,) * 6
    assert (row["many"], row["path"], row["counts"]) == ([], [], [])


def test_a_mutated_message_changes_no_other() -> None:
    choose = random.Random(2)
    found = reader("All")
    bad = 0
    for _ in range(25):
        good = [any_message(choose).SerializeToString() for _ in range(200)]
        payloads = [mutated(choose, each) if choose.random() < 0.2 else each for each in good]
        for payload, row in zip(payloads, together(found, payloads), strict=True):
            expected = read_message("All", payload)
            if row is None:
                row = alone(found, payload)
                bad += isinstance(row, str)
            assert repr(row) == repr(expected) or (expected is None and isinstance(row, str)), payload
    assert bad > 300


FIELD = {name: number for number, name in enumerate(message_class("All").DESCRIPTOR.fields_by_name, 1)}


def tagged(name: str, content: bytes) -> bytes:
    number = message_class("All").DESCRIPTOR.fields_by_name[name].number << 3 | 2
    tag = bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])
    return tag + bytes([len(content)]) + content


@pytest.mark.parametrize(
    "payload",
    [
        tagged("at", b"\x09" + bytes(7) + b"\x40") + tagged("at", b"\x12\x01q"),
        tagged("counts", b"\x0a\x01k\x10\x01") + tagged("counts", b"\x0a\x01k\x10\x02"),
        tagged("counts", b""),
        tagged("many", b"\x01\x02") + tagged("many", b"\x03"),
        tagged("left", b"l") + b"\xf0\x01\x04",
        b"\xf8\x7f\x01" + b"\xa3\x06\x08\x01\xa4\x06",
    ],
    ids=["a message in two parts", "a key twice", "no key", "numbers in two parts", "unknown", "an unknown group"],
)
def test_unusual_messages_are_what_googles_library_says(payload: bytes) -> None:
    expected = read_message("All", payload)
    assert expected is not None
    assert alone(reader("All"), payload) == expected
    assert together(reader("All"), [payload] * 9) == [expected] * 9


def nested_groups(count: int, closed: bool) -> bytes:
    return b"\xa3\x06" * count + (b"\xa4\x06" * count if closed else b"")


def nested_nodes(count: int) -> bytes:
    payload = b""
    for _ in range(count):
        length, size = len(payload), b""
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        payload = b"\x12" + size + bytes([length]) + payload
    return payload


@pytest.mark.parametrize(
    "bomb",
    [
        nested_groups(300_000, closed=False),
        nested_groups(300_000, closed=True),
        nested_nodes(2_000),
        b"\x0a\xff\xff\xff\xff\x07abc",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7fabc",
    ],
    ids=["open groups", "groups", "messages", "2 GB", "more"],
)
def test_bombs_are_rejected(bomb: bytes) -> None:
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
import pyarrow as pa
from tests.support.protobuf_reading import reader
found = reader("Node")
bomb = sys.stdin.buffer.read()
[item] = found.replay(bomb, {}, "x")
assert "not a serialized message of type shop.v1.Node" in item.message
good = [b"\\x08\\x01"] * 20
[(rows, batch), *more] = found.together(pa.array([*good, bomb], pa.large_binary()))
"""
    processes.run([sys.executable, "-c", code], cwd=ROOT, input=bomb, check=True, timeout=120)


def test_a_type_within_itself_is_bytes() -> None:
    node = message_class("Node")(n=1)
    node.next.n = 2
    found = reader("Node")
    assert found.spec.columns == pa.schema([("n", pa.int32()), ("next", pa.binary())])
    assert alone(found, node.SerializeToString()) == {"n": 1, "next": b"\x08\x02"}


def test_only_the_columns_wanted() -> None:
    found = reader("Birth", columns=pa.schema([("missing", pa.int64()), ("plurality", pa.int32())]))
    payload = message_class("Birth")(plurality=2, source_id="b").SerializeToString()
    assert together(pickle.loads(pickle.dumps(found)), [payload]) == [{"missing": None, "plurality": 2}]


@pytest.mark.parametrize(
    ("name", "path"),
    [("Birth", b"\0"), ("Birth", b"\x02\x00"), ("Point", b"\x02\x02"), ("Point.Inner", b"\x04\x02\x02")],
)
def test_confluents_framing(name: str, path: bytes) -> None:
    found = reader(name, "confluent")
    kind = MessageType(descriptors(), f"shop.v1.{name}")
    field = kind.schema.names[-1]
    value = 5 if name == "Point.Inner" else "a"
    message = message_class("Point").DESCRIPTOR if name == "Point.Inner" else None
    body = b"\x08\x05" if message else message_class(name)(**{field: value}).SerializeToString()
    payload = b"\0\0\0\x02\x01" + path + body
    assert alone(found, payload)[field] == value
    if path != b"\x02\x00":
        rows = together(found, [payload] * 9)
        assert [row and row[field] for row in rows] == [value] * 9
    assert "another message type" in alone(found, b"\0\0\0\x02\x01" + b"\x02\x08" + body)
    assert "Confluent" in alone(found, b"\x01\0\0\x02\x01" + path + body)
    assert "Confluent" in alone(found, b"\0\0\0")
    assert together(found, [b"\x01" + payload, b"\0", b"", b"\0\0\0\x02\x01\x02\x08"] * 3) == [None] * 12


def test_a_message_type_that_is_not_there_is_told() -> None:
    with pytest.raises(UnknownMessageError, match="did you mean 'shop.v1.Birth'"):
        MessageType(descriptors(), "shop.v1.Brith")
    with pytest.raises(UnknownMessageError, match="did you mean 'shop.v1.Birth'"):
        MessageType(descriptors(), "Birth")
    with pytest.raises(UnknownMessageError, match=r"there are: shop\.v1\.Birth, shop\.v1\.Point"):
        MessageType(descriptors(), "zzz")


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b'syntax = "proto3";', b"\x0a\x00"])
def test_a_file_without_descriptors_is_told(content: bytes) -> None:
    with pytest.raises(FormatError, match="descriptor_set_out|there is no message"):
        MessageType(content, "shop.v1.Birth")


def test_missing_imports_are_told() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors())
    del files.file[0]
    with pytest.raises(FormatError, match=r"has no google/protobuf/timestamp\.proto; .* --include_imports"):
        MessageType(files.SerializeToString(), "shop.v1.All")


def test_messages_without_fields_are_no_rows() -> None:
    with pytest.raises(FormatError, match="no fields"):
        MessageType(descriptors(), "shop.v1.Point.Other")


def test_old_messages() -> None:
    """Of proto2: what is missing is null, also where it has a default or is required; groups are no columns."""
    files = descriptor_pb2.FileDescriptorSet()
    file = files.file.add(name="old.proto", package="old", syntax="proto2")
    message = file.message_type.add(name="M")
    for number, (name, label) in enumerate((("k", 2), ("n", 1), ("many", 3)), 1):
        message.field.add(name=name, number=number, label=label, type=5)
    message.field[1].default_value = "7"
    message.nested_type.add(name="G").field.add(name="z", number=1, label=1, type=5)
    message.field.add(name="g", number=9, label=1, type=10, type_name=".old.M.G")
    found = MessageType(files.SerializeToString(), "old.M")
    assert found.schema.names == ["k", "n", "many"]
    options = {"descriptor": files.SerializeToString(), "message": "old.M", "framing": "none"}
    old = ProtobufReader(ReadSpec(found.schema, options))
    assert alone(old, b"\x18\x04\x18\x05\x4b\x08\x01\x4c") == {"k": None, "n": None, "many": [4, 5]}
    assert alone(old, b"\x08\x01\x10\x02") == {"k": 1, "n": 2, "many": []}


def test_messages_that_would_fill_the_memory_are_too_large() -> None:
    """Two bytes make a row of 1,000 columns."""
    files = descriptor_pb2.FileDescriptorSet()
    file = files.file.add(name="wide.proto", syntax="proto3")
    wide = file.message_type.add(name="Wide")
    for number in range(1, 1001):
        wide.field.add(name=f"f{number}", number=number, label=1, type=1)
    file.message_type.add(name="M").field.add(name="w", number=1, label=3, type=11, type_name=".Wide")
    options = {"descriptor": files.SerializeToString(), "message": "M", "framing": "none"}
    found = ProtobufReader(ReadSpec(MessageType(options["descriptor"], "M").schema, options))
    message = alone(found, b"\x0a\x00" * 1_000_000)
    assert "too large for a message of M: 2,000,000 bytes, which take" in message
    assert len(alone(found, b"\x0a\x00" * 100)["w"]) == 100
