"""Makes columns of a message type of protobuf by its descriptor."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.formats.base import FormatError
from pipelines.formats.limits import MAX_TYPES
from pipelines.formats.protobuf.cost import Costs

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor

ROW = 1
"""Number of the field that holds the messages which are decoded together."""

_TOGETHER = "pipelines_rows"


class UnknownMessageError(FormatError):
    """Raised when the descriptors have no message type of that name."""


class MessageType:
    """Describes a type of messages.

    Args:
      descriptors: a serialized FileDescriptorSet, with all imports.
      name: the type's full name.

    Attributes:
      name: the type's full name.
      schema: the columns of its messages.
      path: the index of the type among those of its file, or of the one it is nested in; outermost first.
      costs: the memory that messages take.

    Raises:
      FormatError: the descriptors are none, or messages have no columns.
      UnknownMessageError: they do not have the type.
    """

    def __init__(self, descriptors: bytes, name: str) -> None:
        from google.protobuf import message_factory

        pool, names = _pool(descriptors)
        self.name = name = name.lstrip(".")
        if name not in names:
            short = {known.rpartition(".")[2]: known for known in names}
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            near = near or [short[last] for last in [name.rpartition(".")[2]] if last in short]
            meant = f"; did you mean '{near[0]}'?" if near else f" (there are: {', '.join(_own(names)[:10])})"
            raise UnknownMessageError(f"there is no message '{name}'{meant}")
        found = pool.FindMessageTypeByName(name)
        self.path = _path(found)
        self.costs = Costs(found)
        together = _together(pool, found)
        self._class = message_factory.GetMessageClass(together)
        self._row_class = message_factory.GetMessageClass(found)
        self._handler = _handler(together)
        rows = self._handler.schema().field(0).type.value_type
        fields = [field for field in found.fields if not _has_group(field, set())]
        if not fields:
            raise FormatError(f"the message '{name}' has no fields: rows need columns")
        self.schema = pa.schema([(field.name, _plain(rows.field(field.name).type)) for field in fields])

    def is_message(self, payload: bytes) -> bool:
        """Tells whether a payload is a message at all."""
        from google.protobuf.message import DecodeError

        try:
            self._row_class.FromString(payload)
        except DecodeError:
            return False
        return True

    def rows(self, joined: bytes) -> pa.StructArray | None:
        """Returns messages as columns, from the message that has them in its field ROW; None if one is malformed."""
        from google.protobuf.message import DecodeError

        try:
            canonical = self._class.FromString(joined).SerializePartialToString()
        except DecodeError:
            return None
        try:
            return self._handler.array_to_record_batch(pa.array([canonical], pa.binary())).column(0).flatten()
        except (ValueError, pa.ArrowException):
            return None
        except BaseException as error:
            # A panic of Rust's is no Exception.
            if type(error).__name__ != "PanicException":
                raise
            return None


def _pool(descriptors: bytes) -> tuple[Any, list[str]]:
    """A pool of the files in a set, and the names of their messages."""
    from google.protobuf import descriptor_pb2, descriptor_pool
    from google.protobuf.message import DecodeError

    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
    except DecodeError:
        files = []
    if not files:
        raise FormatError(
            "is not a set of descriptors; make it with protoc --include_imports --descriptor_set_out=FILE"
        )
    pool = descriptor_pool.DescriptorPool()
    names: list[str] = []
    for file in files:
        try:
            pool.AddSerializedFile(file.SerializeToString())
        except (TypeError, ValueError, KeyError) as error:
            missing = sorted(set(file.dependency) - {other.name for other in files})
            why = f"it has no {', '.join(missing)}; make it with protoc --include_imports" if missing else str(error)
            raise FormatError(f"{file.name} cannot be read: {why}") from None
        names += _names(file.message_type, file.package)
        if len(names) > MAX_TYPES:
            raise FormatError(f"has more than {MAX_TYPES:,} message types; make it of the files that are needed")
    return pool, names


def _own(names: list[str]) -> list[str]:
    """Those that do not come with protobuf itself, unless there are no others."""
    return [name for name in names if not name.startswith("google.protobuf.")] or names


def _names(messages: Any, space: str) -> Iterator[str]:
    for message in messages:
        name = f"{space}.{message.name}".lstrip(".")
        if not message.options.map_entry:
            yield name
            yield from _names(message.nested_type, name)


def _together(pool: Any, row: Descriptor) -> Descriptor:
    """A message type with a repeated field of another."""
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_TOGETHER}.proto", package=_TOGETHER, syntax="proto3", dependency=[row.file.name]
    )
    field = file.message_type.add(name="Rows").field.add(name="rows", number=ROW, type_name=f".{row.full_name}")
    field.type, field.label = field.TYPE_MESSAGE, field.LABEL_REPEATED
    pool.AddSerializedFile(file.SerializeToString())
    made: Descriptor = pool.FindMessageTypeByName(f"{_TOGETHER}.Rows")
    return made


def _handler(type: Descriptor) -> Any:
    import ptars

    config = ptars.PtarsConfig(timestamp_unit="us", time_unit="us", duration_unit="us", enum_repr="string")
    try:
        handler = ptars.HandlerPool([type.file], config).get_for_message(type)
        handler.schema()
        return handler
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise FormatError(f"its descriptors are of a kind that cannot be read: {error}") from None


def _path(type: Descriptor) -> list[int]:
    outer = type.containing_type
    if outer is None:
        return [list(type.file.message_types_by_name).index(type.name)]
    return [*_path(outer), [nested.name for nested in outer.nested_types].index(type.name)]


def _has_group(field: FieldDescriptor, seen: set[str]) -> bool:
    if field.type == field.TYPE_GROUP:
        return True
    inner = field.message_type
    if inner is None or inner.full_name in seen:
        return False
    seen.add(inner.full_name)
    return any(_has_group(each, seen) for each in inner.fields)


def _plain(type: pa.DataType) -> pa.DataType:
    """A type whose parts may all be null, as those of other formats; maps are lists."""
    if pa.types.is_map(type):
        return pa.list_(pa.struct([("key", _plain(type.key_type)), ("value", _plain(type.item_type))]))
    if pa.types.is_list(type):
        return pa.list_(_plain(type.value_type))
    if pa.types.is_struct(type):
        return pa.struct([(field.name, _plain(field.type)) for field in type])
    return type
