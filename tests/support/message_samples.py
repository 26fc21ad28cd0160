"""Makes messages of Avro and protobuf with values of all types, and decodes them one at a time."""

from __future__ import annotations

import io
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2

BIRTH = {
    "source_id": "string",
    "is_male": "string",
    "mother_race": "string",
    "mother_age": "float",
    "plurality": "int32",
    "gestation_weeks": "double",
    "mother_married": "string",
    "cigarette_use": "string",
    "alcohol_use": "string",
}
"""The fields of a birth, with their protobuf types."""

AVRO_BIRTH = {
    "type": "record",
    "name": "Birth",
    "namespace": "natality",
    "fields": [{"name": name, "type": {"int32": "int"}.get(type, type)} for name, type in BIRTH.items()],
}

AVRO_ALL: dict[str, Any] = {
    "type": "record",
    "name": "All",
    "namespace": "a.b",
    "fields": [
        {"name": "s", "type": "string"},
        {"name": "ns", "type": ["null", "string"]},
        {"name": "sn", "type": ["string", "null"]},
        {"name": "i", "type": "int"},
        {"name": "l", "type": "long"},
        {"name": "f", "type": "float"},
        {"name": "d", "type": "double"},
        {"name": "t", "type": "boolean"},
        {"name": "by", "type": "bytes"},
        {"name": "fx", "type": {"type": "fixed", "name": "F", "size": 4}},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}},
        {"name": "ne", "type": ["null", "E"]},
        {"name": "ints", "type": {"type": "array", "items": "int"}},
        {"name": "floats", "type": {"type": "array", "items": "float"}},
        {"name": "words", "type": ["null", {"type": "array", "items": ["null", "string"]}]},
        {"name": "counts", "type": {"type": "map", "values": "long"}},
        {
            "name": "part",
            "type": [
                "null",
                {
                    "type": "record",
                    "name": "Part",
                    "fields": [
                        {"name": "x", "type": "double"},
                        {"name": "deep", "type": {"type": "array", "items": {"type": "array", "items": "long"}}},
                    ],
                },
            ],
        },
    ],
}


def poisoned(birth: bytes) -> dict[int, bytes]:
    """Births of JSON that no model can take, by the numbers that they are to have: each differs from the others."""
    values = [
        *('["a", 1]', "[1, 2]", "1180591620717411303424e999", "1" * 5_000, "1e400", "true", '"many"', '{"a": 1}'),
        *('"\\ud800"', "[" * 100_000 + "]" * 100_000, "null null"),
    ]
    bad = []
    for n, value in enumerate(values):
        row = {**json.loads(birth), "source_id": f"poison {n}", "plurality": "here"}
        bad.append(json.dumps(row).replace('"here"', value).encode())
    bad += [b"null", b"[]", b"7", b"\xff\xfe{\x00}\x00", b"\x00" * 9, b'"text"']
    return {7 + 9 * n: payload for n, payload in enumerate(bad)}


def datum(schema: Any, value: Any) -> bytes:
    sink = io.BytesIO()
    fastavro.schemaless_writer(sink, fastavro.parse_schema(schema), value)
    return sink.getvalue()


def read_datum(schema: Any, payload: bytes) -> dict[str, Any] | None:
    """What fastavro reads, as the columns have it; None if it is no datum of the schema."""
    stream = io.BytesIO(payload)
    try:
        found: Any = fastavro.schemaless_reader(stream, fastavro.parse_schema(schema), None)
    except (ValueError, EOFError, IndexError, OverflowError):
        return None
    if stream.tell() < len(payload):
        return None
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    return (
        [{"key": k, "value": v} for k, v in value.items()] if isinstance(value, dict) and "deep" not in value else value
    )


def any_row(choose: random.Random) -> dict[str, Any]:
    """A value of AVRO_ALL."""
    return {
        "s": "é" * choose.randint(0, 80),
        "ns": choose.choice([None, "x"]),
        "sn": choose.choice([None, "y"]),
        "i": choose.randint(-(1 << 31), (1 << 31) - 1),
        "l": choose.choice([0, -1, (1 << 63) - 1, -(1 << 63), choose.randint(-9999, 9999)]),
        "f": 1.5,
        "d": choose.random(),
        "t": choose.choice([True, False]),
        "by": b"\xff" * choose.randint(0, 3),
        "fx": b"abcd",
        "e": choose.choice("ABC"),
        "ne": choose.choice([None, "B"]),
        "ints": [choose.randint(-99_999, 9_999) for _ in range(choose.randint(0, 5))],
        "floats": [0.5] * choose.randint(0, 4),
        "words": choose.choice([None, [], ["a", None, ""]]),
        "counts": choose.choice([{}, {"k": 5, "m": -1}]),
        "part": choose.choice([None, {"x": 1.0, "deep": [[], [1, 2], [3]]}]),
    }


def mutated(choose: random.Random, payload: bytes) -> bytes:
    """A message that something happened to."""
    found = bytearray(payload)
    for _ in range(choose.randint(1, 3)):
        at = choose.randint(0, max(len(found) - 1, 0))
        match choose.randint(0, 3):
            case 0:
                found[at : at + 1] = bytes([choose.randrange(256)])
            case 1:
                del found[at:]
            case 2:
                found[at:at] = bytes([choose.randrange(256)])
            case _:
                del found[at : at + choose.randint(1, 4)]
    return bytes(found)


_SCALARS = ("double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "bytes", "uint32")
_SCALARS += ("sfixed32", "sfixed64", "sint32", "sint64")


def _add(message: Any, name: str, type: str, repeated: bool = False, optional: bool = False) -> Any:
    field = message.field.add(name=name, number=len(message.field) + 1)
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if type in _SCALARS:
        field.type = getattr(field, f"TYPE_{type.upper()}")
    else:
        field.type_name = type
        field.type = field.TYPE_ENUM if type.endswith("Kind") else field.TYPE_MESSAGE
    if optional:
        field.proto3_optional = True
        field.oneof_index = len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{name}")
    return field


@cache
def descriptors() -> bytes:
    """As protoc writes them: package shop.v1 with the messages Birth, Point (and Point.Inner), Node and All."""
    made = descriptor_pb2.FileDescriptorSet()
    for module in (timestamp_pb2, wrappers_pb2):
        module.DESCRIPTOR.CopyToProto(made.file.add())
    imports = ["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"]
    file = made.file.add(name="shop.proto", package="shop.v1", syntax="proto3", dependency=imports)
    kinds = file.enum_type.add(name="Kind")
    for number, name in enumerate(("UNKNOWN", "SMALL", "LARGE")):
        kinds.value.add(name=name, number=number)
    birth = file.message_type.add(name="Birth")
    for name, type in BIRTH.items():
        _add(birth, name, type)
    point = file.message_type.add(name="Point")
    _add(point, "x", "double")
    _add(point, "label", "string", optional=True)
    point.nested_type.add(name="Other")
    _add(point.nested_type.add(name="Inner"), "n", "int64")
    node = file.message_type.add(name="Node")
    _add(node, "n", "int32")
    _add(node, "next", ".shop.v1.Node")
    every = file.message_type.add(name="All")
    for type in _SCALARS:
        _add(every, f"a_{type}", type)
    _add(every, "kind", ".shop.v1.Kind")
    _add(every, "many", "int32", repeated=True)
    _add(every, "texts", "string", repeated=True)
    _add(every, "kinds", ".shop.v1.Kind", repeated=True)
    _add(every, "at", ".shop.v1.Point")
    _add(every, "path", ".shop.v1.Point", repeated=True)
    entry = every.nested_type.add(name="CountsEntry")
    entry.options.map_entry = True
    _add(entry, "key", "string")
    _add(entry, "value", "int32")
    _add(every, "counts", ".shop.v1.All.CountsEntry", repeated=True)
    _add(every, "when", ".google.protobuf.Timestamp")
    _add(every, "wrapped", ".google.protobuf.DoubleValue")
    every.oneof_decl.add(name="choice")
    for name, type in (("left", "string"), ("right", "int64")):
        _add(every, name, type).oneof_index = 0
    for name, type in (("maybe", "int32"), ("perhaps", "string"), ("some", ".shop.v1.Kind")):
        _add(every, name, type, optional=True)
    return made.SerializeToString()


@cache
def message_class(name: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"shop.v1.{name}"))


def any_message(choose: random.Random) -> Any:
    """A message of type All."""
    found = message_class("All")(
        a_double=choose.random(),
        a_float=1.5,
        a_int64=choose.choice([-(1 << 63), (1 << 63) - 1, 0]),
        a_uint64=choose.choice([(1 << 64) - 1, 0]),
        a_int32=choose.randint(-(1 << 31), (1 << 31) - 1),
        a_fixed64=2,
        a_bool=choose.choice([True, False]),
        a_string="é" * choose.randint(0, 60),
        a_bytes=b"\xff" * choose.randint(0, 3),
        a_sint64=-6,
        kind=choose.choice([0, 1, 2, 9]),
        many=range(choose.randint(0, 4)),
        texts=["a", ""] * choose.randint(0, 2),
        kinds=[1, 2],
        counts={"k": 1} if choose.random() < 0.5 else {},
    )
    if choose.random() < 0.5:
        found.maybe, found.perhaps, found.left = 0, "", "l"
        found.at.x = 1
        found.path.add(x=2, label="q")
        found.when.FromSeconds(5)
        found.wrapped.value = 3
    elif choose.random() < 0.5:
        found.right, found.some = 4, 2
    return found


def read_message(name: str, payload: bytes) -> dict[str, Any] | None:
    """What Google's library reads, as the columns have it; None if it is no message."""
    from google.protobuf.message import DecodeError

    try:
        return _values(message_class(name).FromString(payload))
    except DecodeError:
        return None


def _values(message: Any) -> dict[str, Any]:
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Any, field: Any) -> Any:
    value = getattr(message, field.name)
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return sorted(({"key": k, "value": v} for k, v in value.items()), key=json.dumps)
    if field.is_repeated:
        return [_single(item, field) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _single(value, field)


def _single(value: Any, field: Any) -> Any:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    if field.message_type is None:
        return value
    if field.message_type.name == "Timestamp":
        return value.seconds * 1_000_000 + value.nanos // 1000
    return value.value if field.message_type.name == "DoubleValue" else _values(value)


def written_files(folder: Path) -> tuple[str, str]:
    """A file with AVRO_BIRTH, and one with the descriptors."""
    schema, described = folder / "birth.avsc", folder / "shop.desc"
    schema.write_text(json.dumps(AVRO_BIRTH))
    described.write_bytes(descriptors())
    return str(schema), str(described)
