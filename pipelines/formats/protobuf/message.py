"""Decodes serialized protobuf messages of one type, in columns by ptars.

| protobuf | becomes |
|---|---|
| a scalar field | the Arrow type of the same name; its default where it is missing, null if it is `optional` |
| an enum | string: the value's name, or its number where it has no name |
| a repeated field | list |
| a map | list of structs of `key` and `value` |
| a message | struct, or null; within itself: binary |
| Timestamp, Duration, a wrapper | timestamp, duration, the wrapped type; or null |
| a group, or a message that has one | no column |

The messages of a pull are made the repeated field of one message. Google's library parses that and serializes it
again: it so checks every message, and gives all of them the one form that parsers cannot differ about.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.avro.container import varint
from pipelines.formats.base import ReadSpec
from pipelines.formats.limits import DECODED_BYTES
from pipelines.formats.message import (
    CONFLUENT,
    CONFLUENT_ID_BYTES,
    Framing,
    MessageError,
    MessageReader,
    Piece,
    content,
)
from pipelines.formats.protobuf.descriptor import ROW, MessageType
from pipelines.formats.protobuf.wire import nested, tag
from pipelines.rows.origin import Positions

_FEW = 4
"""So few messages are not halved any more: they are looked at alone."""

_SHORT_PATH = b"\x00"
_LONG_PATH = varint(1) + varint(0)
"""Both say: the first message of its file."""


class ProtobufReader(MessageReader):
    """Decodes messages.

    Options: `descriptor`, a serialized FileDescriptorSet; `message`, the full name of the type; `framing`.
    """

    has_own_types = True
    kind = "protobuf"
    libraries = ("ptars", "google.protobuf.message_factory")

    def __init__(self, spec: ReadSpec) -> None:
        super().__init__(spec)
        self._type = MessageType(spec.options["descriptor"], spec.options["message"])
        names = self._type.schema.names
        wanted = set(self.spec.columns.names)
        self._wanted = [name for name in names if name in wanted] or names[:1]
        self.block_bytes = min(MessageReader.block_bytes, self._type.costs.max_bytes)

    def __reduce__(self) -> tuple[type[ProtobufReader], tuple[ReadSpec]]:
        return type(self), (self.spec,)

    def format_of(self, context: Any) -> dict[str, Any]:
        return {**super().format_of(context), "name": self._type.name}

    def framed(self) -> Framing:
        if self.framing == "none":
            return Framing()
        path = b"".join(map(varint, [len(self._type.path), *self._type.path]))
        return Framing(CONFLUENT, CONFLUENT_ID_BYTES, _SHORT_PATH if path == _LONG_PATH else path)

    def body(self, payload: bytes) -> bytes:
        framing = self.framed()
        if not framing.length:
            return payload
        at = len(framing.begin) + framing.id_bytes
        if not payload.startswith(framing.begin) or len(payload) <= at:
            raise MessageError("not in Confluent's format: it does not begin with 00 and a schema's id")
        allowed = (_SHORT_PATH, _LONG_PATH) if framing.then == _SHORT_PATH else (framing.then,)
        for path in allowed:
            if payload.startswith(path, at):
                return payload[at + len(path) :]
        raise MessageError(
            f"it is of another message type than {self._type.name}, by its indexes after the schema's id"
        )

    def memory(self, rows: int, nbytes: int) -> int:
        return self._type.costs.memory(rows, nbytes)

    def decode(self, bodies: pa.LargeBinaryArray) -> list[Piece]:
        costs = self._type.costs
        lengths = pc.binary_length(bodies).to_numpy()
        found: list[Piece] = []
        step = max(1, DECODED_BYTES // (2 * costs.row))
        for start in range(0, len(bodies), step):
            rows = start + np.flatnonzero(lengths[start : start + step] <= costs.max_bytes)
            found += self._together(rows, bodies if len(rows) == len(bodies) else bodies.take(pa.array(rows)))
        for row in np.flatnonzero(lengths > costs.max_bytes).tolist():
            body = bodies.slice(row, 1)
            if not costs.measure(body[0].as_py()) and (batch := self._read(body)) is not None:
                found.append((np.array([row], np.int64), batch))
        return found

    def wrong(self, body: bytes) -> str:
        if problem := self._type.costs.measure(body):
            return f"too large for a message of {self._type.name}: {problem}"
        return "" if self._type.is_message(body) else f"not a serialized message of type {self._type.name}"

    def _together(self, rows: Positions, bodies: pa.LargeBinaryArray) -> list[Piece]:
        batch = self._read(bodies) if len(rows) else None
        if batch is not None:
            return [(rows, batch)]
        whole = np.array([self._type.is_message(body) for body in bodies.to_pylist()], bool)
        rows, bodies = rows[whole], bodies.filter(pa.array(whole))
        found: list[Piece] = []
        pending = [(0, len(rows))] if len(rows) else []
        while pending:
            low, high = pending.pop()
            batch = self._read(bodies.slice(low, high - low))
            if batch is not None:
                found.append((rows[low:high], batch))
            elif high - low > _FEW:
                middle = (low + high) // 2
                pending += [(middle, high), (low, middle)]
        return found

    def _read(self, bodies: pa.LargeBinaryArray) -> pa.RecordBatch | None:
        """The columns of messages; None if one of them is not what it should be."""
        rows = self._type.rows(content(nested([tag(ROW)], bodies)))
        if rows is None or len(rows) != len(bodies):
            return None
        schema = self._type.schema
        columns = [(rows.field(name), schema.field(name).type) for name in self._wanted]
        arrays = [column if column.type == type else column.cast(type) for column, type in columns]
        return pa.RecordBatch.from_arrays(arrays, self._wanted)
