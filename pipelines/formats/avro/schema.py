"""Maps Avro types to Arrow types, and to the simpler Avro types of the same bytes that are decoded instead.

| Avro | decoded as | becomes |
|---|---|---|
| boolean, int, long, float, double, bytes | itself | bool, int32, int64, float32, float64, binary |
| string | bytes | string (text that is not UTF-8 shows afterwards, row by row) |
| enum | int | dictionary<int32, string> |
| fixed | itself | fixed-size binary; string where it is a UUID |
| array, map | array (of `key`, `value` records) | list (of structs) |
| record | record | struct |
| a union of null and one type | itself | that type, nullable |
| date, time, timestamp, decimal | int, long, bytes or fixed | the Arrow type of the same name |

Columns with other unions, or with recursive types, are decoded one row at a time: unions of numbers as their
widest type, all others as text (strings as they are, everything else as JSON).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.avro.container import CorruptError
from pipelines.formats.avro.shape import Layout
from pipelines.formats.base import FormatError
from pipelines.formats.limits import MAX_DEPTH, MAX_NAME, MAX_TYPES
from pipelines.formats.readable import uuid_text

PRIMITIVES = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.binary(),
}
_TEMPORAL = {
    ("int", "date"): pa.date32(),
    ("int", "time-millis"): pa.time32("ms"),
    ("long", "time-micros"): pa.time64("us"),
    ("long", "timestamp-millis"): pa.timestamp("ms", "UTC"),
    ("long", "timestamp-micros"): pa.timestamp("us", "UTC"),
    ("long", "timestamp-nanos"): pa.timestamp("ns", "UTC"),
    ("long", "local-timestamp-millis"): pa.timestamp("ms"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"),
    ("long", "local-timestamp-nanos"): pa.timestamp("ns"),
}
_UNBOUNDED_TEXT = pc.CastOptions(pa.string(), allow_invalid_utf8=True)
_DECIMALS = 1 << 16
"""Decimals that are converted at a time: meanwhile each of their bytes takes some 32."""


@dataclass(frozen=True)
class Node:
    """Describes an Avro type.

    Attributes:
      kind: the Avro type, names and unions with null resolved; `text` for what Arrow has no type for.
      simple: the Avro type that is decoded in its place.
      type: the Arrow type it becomes.
      children: item, or fields, or key and value, by name.
      symbols: of an enum.
      nullable: a union with null.
      columnar: whether a columnar decoder can take it.
    """

    kind: str
    simple: Any
    type: pa.DataType
    children: Mapping[str, Node]
    symbols: tuple[str, ...] = ()
    nullable: bool = False
    columnar: bool = True


def resolve(schema: Any, name: str) -> Node:
    """Returns the record type of a container's schema. Raises FormatError."""
    if not (isinstance(schema, dict) and schema.get("type") == "record" and schema.get("fields")):
        raise FormatError(f"{name}: the Avro schema is not a record with fields: rows need columns")
    try:
        record = _Resolver().node(schema, "", 0)
        Layout(record.simple, record.columnar).check()
        return record
    except FormatError as error:
        raise FormatError(f"{name}: {error}") from None
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise FormatError(f"{name}: the Avro schema is not valid: {error!r}") from None


def convert(array: pa.Array, node: Node) -> pa.Array:
    """Turns a decoded array of `node.simple` into one of `node.type`. Raises CorruptError."""
    kind, type = node.kind, node.type
    if kind == "string":
        text = pc.cast(array, options=_UNBOUNDED_TEXT)
        return text
    if kind == "uuid":
        return uuid_text(array.cast(pa.binary(16)))
    if kind == "enum":
        limits = pc.min_max(array).as_py()
        if limits["min"] is not None and (limits["min"] < 0 or limits["max"] >= len(node.symbols)):
            raise CorruptError("an enum has a symbol that its type does not have")
        return pa.DictionaryArray.from_arrays(array.cast(pa.int32()), pa.array(node.symbols, pa.string()))
    if kind == "decimal":
        return _decimals(array, type)
    if kind == "temporal":
        return array.view(type)
    if kind in ("array", "map"):
        values = convert(array.values, node.children["item"])
        mask = array.is_null() if array.null_count else None
        return pa.ListArray.from_arrays(array.offsets.cast(pa.int32()), values, mask=mask)
    if kind == "record":
        columns = [convert(array.field(i), child) for i, child in enumerate(node.children.values())]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(columns, fields=list(type), mask=mask)
    return array.cast(type)


def array_of(values: list[Any], node: Node) -> pa.Array:
    """Returns an array of `node.type` from values decoded one by one."""
    if node.kind == "text":
        return convert(pa.array([_text(value) for value in values], pa.binary()), _STRING)
    return convert(pa.array(values, _decoded_type(node)), node)


class _Resolver:
    """Resolves names; makes the names in simple schemas unique, as the decoders want them."""

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}
        self.open: dict[str, str] = {}
        self.count = 0
        self.uses = 0

    def node(self, schema: Any, space: str, depth: int) -> Node:
        self.uses += 1
        if self.uses > MAX_TYPES:
            raise FormatError(
                f"the Avro schema has more than {MAX_TYPES:,} types, when named ones are written out wherever they "
                "are used; use fewer, or name them less often within each other"
            )
        if depth > MAX_DEPTH:
            raise FormatError(f"the Avro schema has types nested deeper than {MAX_DEPTH} levels")
        if isinstance(schema, list):
            return self._union(schema, space, depth)
        if isinstance(schema, str):
            if schema in PRIMITIVES:
                return _primitive(schema, {})
            full = schema if "." in schema else f"{space}.{schema}".lstrip(".")
            full = full if full in self.named else schema
            if full in self.open:
                return _text_node(self.open[full])
            return self.node(self.named[full], space, depth + 1)
        kind = schema["type"]
        if isinstance(kind, (dict, list)):
            return self.node(kind, space, depth + 1)
        if kind in ("record", "error", "enum", "fixed"):
            return self._named(schema, kind, space, depth)
        if kind == "array":
            return _list("array", self.node(schema["items"], space, depth + 1))
        if kind == "map":
            # A list of pairs.
            value = self.node(schema["values"], space, depth + 2)
            return _list("map", self._struct(self._name(), {"key": _primitive("string", {}), "value": value}))
        if kind in PRIMITIVES:
            return _primitive(kind, schema)
        return self.node(kind, space, depth + 1)

    def _named(self, schema: Any, kind: str, space: str, depth: int) -> Node:
        full = schema["name"]
        if "." not in full:
            full = f"{schema.get('namespace') or space}.{full}".lstrip(".")
        space = full.rpartition(".")[0]
        self.named[full] = schema
        if kind == "enum":
            symbols = tuple(_named(symbol) for symbol in schema["symbols"])
            return Node("enum", "int", pa.dictionary(pa.int32(), pa.string()), {}, symbols)
        if kind == "fixed":
            if (size := int(schema["size"])) < 0:
                raise ValueError("a fixed type of negative size")
            simple = {"type": "fixed", "name": self._name(), "size": size}
            if schema.get("logicalType") == "decimal":
                return _decimal(simple, schema)
            if schema.get("logicalType") == "uuid" and size == 16:
                return Node("uuid", simple, pa.string(), {})
            return Node("fixed", simple, pa.binary(size), {})
        self.open[full] = name = self._name()
        children = {_named(f["name"]): self.node(f["type"], space, depth + 1) for f in schema["fields"]}
        if len(children) < len(schema["fields"]):
            twice = sorted(name for name, count in Counter(f["name"] for f in schema["fields"]).items() if count > 1)
            raise FormatError(
                f"column {twice[0]!r} appears twice in record {full!r}; rename one of the two in the file"
            )
        del self.open[full]
        return self._struct(name, children)

    def _struct(self, name: str, children: dict[str, Node]) -> Node:
        simple = {
            "type": "record",
            "name": name,
            "fields": [{"name": field, "type": child.simple} for field, child in children.items()],
        }
        type = pa.struct([(field, child.type) for field, child in children.items()])
        node = Node("record", simple, type, children, columnar=all(c.columnar for c in children.values()))
        # Text inside of a column makes text of the whole column; the file's own row is no column.
        return _text_node(simple) if self.open and any(c.kind == "text" for c in children.values()) else node

    def _union(self, branches: list[Any], space: str, depth: int) -> Node:
        nodes = [self.node(branch, space, depth + 1) for branch in branches]
        others = [node for node in nodes if node.kind != "null"]
        simple = [node.simple for node in nodes]
        if len(others) == 1 and others[0].kind != "text":
            node, nullable = others[0], len(nodes) == 2
            return Node(node.kind, simple, node.type, node.children, node.symbols, True, node.columnar and nullable)
        kinds = {node.kind for node in others}
        for wide, narrow in (("long", {"int", "long"}), ("double", {"int", "float", "double"})):
            if kinds and kinds <= narrow:
                return Node(wide, simple, PRIMITIVES[wide], {}, nullable=True, columnar=False)
        return _text_node(simple)

    def _name(self) -> str:
        self.count += 1
        return f"r{self.count}"


def _named(name: Any) -> str:
    """A field or symbol. Raises FormatError if its name is too long."""
    if len(str(name)) > MAX_NAME:
        raise FormatError(f"the Avro schema has a name of {len(str(name)):,} characters; {MAX_NAME:,} are allowed")
    return str(name)


def _primitive(kind: str, schema: Mapping[str, Any]) -> Node:
    logical = schema.get("logicalType")
    if (kind, logical) in _TEMPORAL:
        return Node("temporal", kind, _TEMPORAL[kind, str(logical)], {})
    if (kind, logical) == ("bytes", "decimal"):
        return _decimal("bytes", schema)
    if kind == "string":
        return Node("string", "bytes", pa.string(), {})
    return Node(kind, kind, PRIMITIVES[kind], {}, columnar=kind != "null")


def _decimal(simple: Any, schema: Mapping[str, Any]) -> Node:
    precision, scale = int(schema.get("precision", 0)), int(schema.get("scale", 0))
    if not 0 < precision <= 76 or not 0 <= scale <= precision:
        # As the specification says, a logical type that is not valid is ignored.
        type = pa.binary(simple["size"]) if isinstance(simple, dict) else pa.binary()
        return Node("bytes", simple, type, {})
    wide = precision > 38
    return Node("decimal", simple, pa.decimal256(precision, scale) if wide else pa.decimal128(precision, scale), {})


def _list(kind: str, item: Node) -> Node:
    simple = {"type": "array", "items": item.simple}
    if item.kind == "text":
        return _text_node(simple)
    if not smallest(item):
        raise ValueError("items without bytes: a file of a few bytes could hold any number of them")
    return Node(kind, simple, pa.list_(item.type), {"item": item}, columnar=item.columnar)


def smallest(node: Node) -> int:
    """Returns the bytes of the smallest value, or 0."""
    if node.nullable:
        return 1
    if node.kind == "record":
        return sum(smallest(child) for child in node.children.values())
    return 0 if node.kind == "null" or node.type == pa.binary(0) else 1


def _text_node(simple: Any) -> Node:
    return Node("text", simple, pa.string(), {}, columnar=False)


def _decoded_type(node: Node) -> pa.DataType:
    """The Arrow type of values that a row decoder makes of `node.simple`."""
    if node.kind in ("array", "map"):
        return pa.list_(_decoded_type(node.children["item"]))
    if node.kind == "record":
        return pa.struct([(name, _decoded_type(child)) for name, child in node.children.items()])
    if node.kind == "temporal":
        return pa.int32() if node.type.bit_width == 32 else pa.int64()
    if node.kind == "enum":
        return pa.int32()
    if node.kind == "uuid":
        return pa.binary(16)
    return pa.binary() if node.kind in ("string", "decimal") else node.type


def _decimals(array: pa.Array, type: pa.DataType) -> pa.Array:
    """Decimals from big-endian two's complement bytes of any length."""
    if len(array) > _DECIMALS:
        starts = range(0, len(array), _DECIMALS)
        return pa.concat_arrays([_decimals(array.slice(start, _DECIMALS), type) for start in starts])
    array = array.cast(pa.large_binary())
    width = type.bit_width // 8
    # A null has no bytes, which reads as zero.
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    lengths = np.diff(offsets)
    if len(lengths) and lengths.max() > width:
        raise CorruptError(f"a decimal of more than {width} bytes")
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    rows = np.repeat(np.arange(len(lengths)), lengths)
    places = np.repeat(offsets[1:] - offsets[0] - 1, lengths) - np.arange(len(data))
    out = np.zeros((len(lengths), width), np.uint8)
    signs = data[(offsets[:-1] - offsets[0])[lengths > 0]] >= 0x80
    out[np.flatnonzero(lengths)[signs]] = 0xFF
    out[rows, places] = data
    validity = pc.invert(array.is_null()).buffers()[1] if array.null_count else None
    return pa.Array.from_buffers(type, len(lengths), [validity, pa.py_buffer(out.tobytes())])


def _text(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return json.dumps(value, default=lambda data: bytes(data).decode("utf-8", "backslashreplace")).encode()


_STRING = Node("string", "bytes", pa.string(), {})
