"""Decodes single Avro datums, as `schemaless` writers make them, all with one schema, in columns by polars.

| framing | before the datum |
|---|---|
| none | nothing |
| single_object | C3 01 and the fingerprint of the schema, which has to be the reader's |
| confluent | 00 and the 4 bytes of a schema's id, which is not looked at |

Datums are walked first (see `avro_walk`): those that are whole become one block of a container in memory. Types that
polars does not know are decoded one datum after the other by fastavro.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.avro import container
from pipelines.formats.avro.boundaries import FINE, IMPOSSIBLE, PADDING, REASONS, TOO_LONG, UNSURE, Outcomes, walk
from pipelines.formats.avro.container import CorruptError
from pipelines.formats.avro.schema import PRIMITIVES, Node, array_of, convert, resolve
from pipelines.formats.avro.shape import Layout, TooLargeError
from pipelines.formats.base import FormatError, ReadSpec
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
from pipelines.rows.origin import Block, RejectedRow

_NO_JSON = (json.JSONDecodeError, UnicodeError)
_SINGLE_OBJECT = b"\xc3\x01"
_MARK = bytes(container.SYNC_BYTES)


def parse_schema(text: bytes) -> Any:
    """Returns the schema in a file. Raises FormatError."""
    try:
        schema = container.parse_json(text)
    except ValueError as error:
        raise FormatError(f"is not JSON: {error}" if isinstance(error, _NO_JSON) else str(error)) from None
    _resolved(schema)
    return schema


class AvroMessageReader(MessageReader):
    """Decodes datums.

    Options: `schema`, parsed, and `framing`.
    """

    has_own_types = True
    kind = "avro"
    libraries = ("polars", "fastavro")

    def __init__(self, spec: ReadSpec) -> None:
        super().__init__(spec)
        self.schema = spec.options["schema"]
        self.record = _resolved(self.schema)
        names = list(self.record.children)
        wanted = set(spec.columns.names)
        self._wanted = [name for name in names if name in wanted] or names[:1]
        self._layout = Layout(self.record.simple, self.record.columnar)
        self._begin = container.header_bytes(self.record.simple, "null", _MARK) if self.record.columnar else b""
        self._framing = self._framing_of()
        self._parsed: Any = None
        self._earlier: AvroMessageReader | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parsed": None, "_earlier": None}

    @classmethod
    def columns(cls, schema: Any) -> pa.Schema:
        """Returns the columns of messages of a schema."""
        return pa.schema([(name, node.type) for name, node in _resolved(schema).children.items()])

    def format_of(self, context: Any) -> dict[str, Any]:
        # Bytes do not say which schema they have, and the config's may be another one when they are replayed.
        return {**super().format_of(context), "schema": self.schema}

    def framed(self) -> Framing:
        return self._framing

    def body(self, payload: bytes) -> bytes:
        begin, length = self._framing.begin, self._framing.length
        if self.framing == "single_object":
            if not payload.startswith(_SINGLE_OBJECT) or len(payload) < length:
                raise MessageError("not Avro's single-object encoding: it does not begin with C3 01 and a fingerprint")
            if not payload.startswith(begin):
                given, own = (raw[2:length][::-1].hex() for raw in (payload, begin))
                raise MessageError(f"its schema has the fingerprint {given}, the one in source.schema has {own}")
        elif not payload.startswith(begin) or len(payload) < length:
            raise MessageError("not in Confluent's format: it does not begin with 00 and a schema's id")
        return payload[length:]

    def replay(self, payload: bytes, context: Mapping[str, Any], name: str) -> Iterator[Block | RejectedRow]:
        found = list(super().replay(payload, context, name))
        earlier = self._reader_of(context)
        if earlier is not None:
            as_before = list(super(AvroMessageReader, earlier).replay(payload, context, name))
            found = found if isinstance(as_before[0], RejectedRow) else as_before
        yield from found

    def memory(self, rows: int, nbytes: int) -> int:
        return self._layout.memory(rows, nbytes)

    def decode(self, bodies: pa.LargeBinaryArray) -> list[Piece]:
        if not self.record.columnar:
            return self._decode_rows(bodies)
        outcomes = self._walk(bodies)
        rows = np.flatnonzero(outcomes == FINE)
        if not len(rows):
            return []
        good = bodies if len(rows) == len(bodies) else bodies.take(pa.array(rows))
        found: list[Piece] = []
        pending = [(0, len(rows))]
        while pending:
            low, high = pending.pop()
            middle = (low + high) // 2
            if high - low > 1 and not self._fits(good.slice(low, high - low)):
                pending += [(middle, high), (low, middle)]
                continue
            if high - low == 1 and self._too_large(good[low].as_py()):
                continue
            try:
                found.append((rows[low:high], self._read(good.slice(low, high - low))))
            except CorruptError:
                # A value that Arrow has no room for.
                pending += [(middle, high), (low, middle)] if high - low > 1 else []
        return found

    def wrong(self, body: bytes) -> str:
        if self.record.columnar:
            reason = REASONS.get(int(self._walk(pa.array([body], pa.large_binary()))[0]), "") or self._too_large(body)
        else:
            row = self._row(body)
            reason = row if isinstance(row, str) else ""
        return f"not a datum of the schema: {reason}" if reason else ""

    def _framing_of(self) -> Framing:
        if self.framing == "single_object":
            import fastavro.schema

            try:
                canonical = fastavro.schema.to_parsing_canonical_form(self.schema)
            except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType) as error:
                raise FormatError(f"is not valid: {error}") from None
            return Framing(_SINGLE_OBJECT + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")))
        return Framing(CONFLUENT, CONFLUENT_ID_BYTES) if self.framing == "confluent" else Framing()

    def _reader_of(self, context: Mapping[str, Any]) -> AvroMessageReader | None:
        """Returns a reader as it was when a dead letter was written, if it was another."""
        then = {key: context[key] for key in ("schema", "framing") if key in context}
        if all(self.spec.options.get(key) == value for key, value in then.items()):
            return None
        if self._earlier is None or any(self._earlier.spec.options[key] != value for key, value in then.items()):
            options = {**self.spec.options, **then}
            self._earlier = AvroMessageReader(ReadSpec(self.spec.columns, options, self.spec.key))
        return self._earlier

    def _walk(self, bodies: pa.LargeBinaryArray) -> Outcomes:
        bounds = np.frombuffer(bodies.buffers()[1], np.int64)[bodies.offset :][: len(bodies) + 1]
        data = np.frombuffer(content(bodies) + bytes(PADDING), np.uint8)
        bounds = bounds - bounds[0]
        outcomes = walk(self.record, data, bounds[:-1], bounds[1:])
        for row in np.flatnonzero(outcomes == UNSURE).tolist():
            outcomes[row] = self._walk_alone(bodies[row].as_py())
        return outcomes

    def _walk_alone(self, body: bytes) -> int:
        try:
            end, _ = self._layout.measure(body, 0)
        except CorruptError:
            return IMPOSSIBLE
        except TooLargeError:
            # The next step says so.
            return FINE
        return FINE if end == len(body) else TOO_LONG

    def _fits(self, bodies: pa.LargeBinaryArray) -> bool:
        """Whether datums can be decoded together."""
        nbytes = pc.sum(pc.binary_length(bodies)).as_py() or 0
        return self._layout.memory(len(bodies), nbytes) <= DECODED_BYTES

    def _too_large(self, body: bytes) -> str:
        """Why a datum would take too much memory, or nothing."""
        if self._layout.memory(1, len(body)) <= DECODED_BYTES:
            return ""
        try:
            self._layout.measure(body, 0)
        except TooLargeError as error:
            return str(error)
        except CorruptError:
            # What is wrong with it shows when it is decoded.
            return ""
        return ""

    def _read(self, bodies: pa.LargeBinaryArray) -> pa.RecordBatch:
        """The columns of datums that are whole. Raises CorruptError."""
        import polars as pl

        failures = (OSError, ValueError, MemoryError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
        block = container.block_bytes(len(bodies), content(bodies), _MARK)
        try:
            table = pl.read_avro(io.BytesIO(self._begin + block), columns=self._wanted).to_arrow()
        except failures as error:
            raise CorruptError(f"the datums do not decode: {error}") from None
        if table.num_rows != len(bodies):
            raise CorruptError(f"{len(bodies)} datums have {table.num_rows} rows")
        arrays = [convert(pa.concat_arrays(table.column(n).chunks), self.record.children[n]) for n in self._wanted]
        return pa.RecordBatch.from_arrays(arrays, self._wanted)

    def _row(self, body: bytes) -> dict[str, Any] | str:
        """A datum as Python values, or why it is none."""
        import fastavro

        if problem := self._too_large(body):
            return problem
        if self._parsed is None:
            self._parsed = fastavro.parse_schema(self.record.simple)
        stream = io.BytesIO(body)
        try:
            found = fastavro.schemaless_reader(stream, self._parsed, None)
        except (ValueError, EOFError, IndexError, OverflowError) as error:
            return f"{type(error).__name__}: {error}".rstrip(": ")
        if stream.tell() < len(body):
            return REASONS[TOO_LONG]
        return found if isinstance(found, dict) else "it is not a record"

    def _decode_rows(self, bodies: pa.LargeBinaryArray) -> list[Piece]:
        found: list[Piece] = []
        values: dict[int, dict[str, Any]] = {}
        memory = 0
        for row, body in enumerate(bodies.to_pylist()):
            memory += self._layout.memory(1, len(body))
            if values and memory > DECODED_BYTES:
                found += self._pieces(values)
                values, memory = {}, self._layout.memory(1, len(body))
            value = self._row(body)
            if isinstance(value, dict):
                values[row] = value
        return found + self._pieces(values)

    def _pieces(self, values: dict[int, dict[str, Any]]) -> list[Piece]:
        """The columns of datums by their row; those that Arrow has no room for are left out."""
        try:
            return self._columns(values)
        except (ValueError, OverflowError, pa.ArrowException):
            found: list[Piece] = []
            for row, value in values.items():
                try:
                    found += self._columns({row: value})
                except (ValueError, OverflowError, pa.ArrowException):
                    continue
            return found

    def _columns(self, values: dict[int, dict[str, Any]]) -> list[Piece]:
        if not values:
            return []
        arrays = [array_of([value[n] for value in values.values()], self.record.children[n]) for n in self._wanted]
        return [(np.array(list(values), np.int64), pa.RecordBatch.from_arrays(arrays, self._wanted))]


def _resolved(schema: Any) -> Node:
    try:
        record = resolve(schema, "the schema")
    except FormatError as error:
        raise FormatError(str(error).removeprefix("the schema: ")) from None
    if _names_itself(record.simple):
        raise FormatError("has a type that contains itself; messages of such a type are not read")
    return record


def _names_itself(simple: Any) -> bool:
    """Whether a type refers to one that it is part of."""
    if isinstance(simple, str):
        return simple not in PRIMITIVES
    if isinstance(simple, list):
        return any(_names_itself(branch) for branch in simple)
    parts = [simple["items"]] if "items" in simple else [field["type"] for field in simple.get("fields", [])]
    return any(_names_itself(part) for part in parts)
