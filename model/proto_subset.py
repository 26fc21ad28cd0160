"""Declares protobuf messages in Python, in a descriptor pool of their own.

TensorFlow registers its messages in the default pool when it is imported, so the same full names must not be
registered there a second time. A subset declares only the fields that are read, under their true numbers;
the parser skips every other field.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import (  # type: ignore[import-untyped, unused-ignore]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

_SCALARS = {
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}

Field = tuple[str, int, str]
"""Name, number and type of a field; the type is a scalar or a message, `repeated ` before it, or `map ` before
the value's type (keys are strings). An enum is declared int32: its numbers are the same on the wire."""


def build_messages(package: str, messages: Mapping[str, Sequence[Field]]) -> dict[str, Any]:
    """Returns the message classes of a declared subset.

    A map is declared as the repeated `key`/`value` entries that it is on the wire; `entries` reads one.

    Args:
      package: the protobuf package that holds the messages.
      messages: the fields of each message, by the message's name.

    Returns:
      The message class for each name.

    >>> pair = build_messages("doc", {"Pair": [("left", 1, "int64"), ("right", 2, "repeated string")]})["Pair"]
    >>> pair.FromString(b"\\x08\\x05").left
    5
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}/subset.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            label, _, type_name = kind.rpartition(" ")
            if label == "map":
                entry = message.nested_type.add(name=f"{field_name.title().replace('_', '')}Pair")
                _add_field(entry, package, "key", 1, "string", repeated=False)
                _add_field(entry, package, "value", 2, type_name, repeated=False)
                type_name = f"{name}.{entry.name}"
            _add_field(message, package, field_name, number, type_name, repeated=bool(label))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


def entries(pairs: Any) -> dict[Any, Any]:
    """Returns a map field as a dict (of a repeated key the last entry counts, as protobuf says)."""
    return {pair.key: pair.value for pair in pairs}


def _add_field(message: Any, package: str, name: str, number: int, type_name: str, *, repeated: bool) -> None:
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if type_name in _SCALARS:
        field.type = _SCALARS[type_name]
    else:
        field.type = field.TYPE_MESSAGE
        field.type_name = f".{package}.{type_name}"
