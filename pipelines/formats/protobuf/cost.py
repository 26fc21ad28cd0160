"""Bounds how much memory the messages of a protobuf type take as columns, and whether it can be expanded to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.formats.base import FormatError
from pipelines.formats.limits import DECODED_BYTES, MAX_DEPTH, MAX_EMPTY_ROW_BYTES, MAX_TYPES
from pipelines.formats.protobuf.wire import read_varint

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor

_PER_BYTE = 8
_MAX_STEPS = 1 << 20
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


class Costs:
    """Estimates the memory that messages of a type take, from above.

    Args:
      type: the type.

    Attributes:
      row: memory of an empty message.
      max_bytes: no message of so many bytes takes more than DECODED_BYTES.

    Raises:
      FormatError: the type has too many levels or fields, or an empty message takes too much.
    """

    def __init__(self, type: Descriptor) -> None:
        self._type = type
        self._fields_left = MAX_TYPES
        self._check(type, (), 0)
        self.row = _width(type, frozenset())
        if self.row > MAX_EMPTY_ROW_BYTES:
            raise FormatError(
                f"an empty message of {type.full_name} takes {self.row:,} bytes of memory as columns, "
                f"and may take {MAX_EMPTY_ROW_BYTES:,} at most"
            )
        # By the full name of a type: its fields, and the memory that one more message of it takes.
        self._known: dict[str, tuple[dict[int, FieldDescriptor], int]] = {}
        self._learn(type)
        self._most = self._per_byte()
        self.max_bytes = DECODED_BYTES // self._most

    def memory(self, rows: int, nbytes: int) -> int:
        """Returns the most memory that so many messages of so many bytes together can take."""
        return rows * self.row + nbytes * self._most

    def measure(self, body: bytes) -> str:
        """Returns why a message takes too much memory; empty if it does not, or is no message."""
        if len(body) <= self.max_bytes:
            return ""
        memory = self.row + len(body) * _PER_BYTE
        pending, steps = [(self._type.full_name, 0, len(body))], _MAX_STEPS
        try:
            while pending:
                name, at, end = pending.pop()
                fields = self._known[name][0]
                while at < end:
                    steps -= 1
                    tag, at = read_varint(body, at)
                    field = fields.get(tag >> 3)
                    if (wire := tag & 7) == _VARINT:
                        _, at = read_varint(body, at)
                        memory += 0 if field is None or field.enum_type is None else _name_bytes(field)
                    elif wire in (_FIXED64, _FIXED32):
                        at += 8 if wire == _FIXED64 else 4
                    elif wire == _DELIMITED:
                        length, at = read_varint(body, at)
                        if field is not None and field.message_type is not None:
                            memory += self._known[field.message_type.full_name][1]
                            pending.append((field.message_type.full_name, at, min(at + length, end)))
                        elif field is not None and field.enum_type is not None:
                            memory += min(length, end - at) * _name_bytes(field)
                        at += length
                    else:
                        return f"{len(body):,} bytes with a group; at most {self.max_bytes:,} are allowed then"
                    if not steps:
                        return f"{len(body):,} bytes with more than {_MAX_STEPS:,} fields in all"
                    if memory > DECODED_BYTES:
                        return (
                            f"{len(body):,} bytes, which take {memory:,} bytes of memory or more when decoded; "
                            f"a message may take {DECODED_BYTES:,} at most"
                        )
        except IndexError:
            # Its parser says what is wrong.
            return ""
        return ""

    def _check(self, type: Descriptor, outer: tuple[str, ...], depth: int) -> None:
        """Raises FormatError if there are too many fields when each type is written out wherever it is used."""
        if depth > MAX_DEPTH:
            raise FormatError(f"has messages nested deeper than {MAX_DEPTH} levels: {' > '.join(outer[:3])} > ...")
        self._fields_left -= len(type.fields)
        if self._fields_left < 0:
            raise FormatError(
                f"has more than {MAX_TYPES:,} fields, when messages are written out wherever they are used; "
                "use fewer, or use them less often within each other"
            )
        for field in type.fields:
            inner = field.message_type
            if inner is not None and inner.full_name not in (*outer, type.full_name):
                self._check(inner, (*outer, type.full_name), depth + (2 if is_repeated(field) else 1))

    def _learn(self, type: Descriptor) -> None:
        pending = [type]
        while pending:
            type = pending.pop()
            if type.full_name in self._known:
                continue
            fields = {field.number: field for field in type.fields}
            parsed = 64 + 16 * len(fields)
            # What is parsed is gone before there are columns.
            self._known[type.full_name] = fields, max(parsed, _width(type, frozenset()))
            pending += [field.message_type for field in type.fields if field.message_type is not None]

    def _per_byte(self) -> int:
        """Memory for one byte of a message, at most: an item has two, of which a packed enum's has one."""
        found = _PER_BYTE
        for fields, _ in self._known.values():
            for field in fields.values():
                if field.message_type is not None:
                    found = max(found, _PER_BYTE + self._known[field.message_type.full_name][1] // 2)
                elif field.enum_type is not None:
                    found = max(found, _PER_BYTE + _name_bytes(field))
        return found


def is_repeated(field: FieldDescriptor) -> bool:
    """Tells whether a field has any number of values."""
    # Before version 30 of protobuf there is only the label, after it that is deprecated.
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _width(type: Descriptor, outer: frozenset[str]) -> int:
    """Bytes that an empty message takes as columns."""
    if type.full_name in outer:
        return 8
    total = 8
    for field in type.fields:
        if is_repeated(field):
            total += 8
        elif field.enum_type is not None:
            total += _name_bytes(field)
        elif field.message_type is not None:
            total += _width(field.message_type, outer | {type.full_name})
        else:
            total += 8
    return total


def _name_bytes(field: FieldDescriptor) -> int:
    return 8 + max((len(value.name) for value in field.enum_type.values), default=0)
