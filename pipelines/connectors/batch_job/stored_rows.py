"""Keeps rows in a file as they came from their source, until the results of a job come back for them.

A group of rows is an origin and its record batch. It is written as a head, JSON that says what the origin is, and
blocks of bytes: Arrow's IPC for batches and arrays, plain bytes for text. Only the classes listed here are made again.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.rows.origin import Origin

CLASSES = {
    "text": "pipelines.formats.text_origin.TextOrigin",
    "records": "pipelines.formats.tfrecord.examples.RecordOrigin",
    "parquet": "pipelines.formats.parquet.reader.ParquetOrigin",
    "orc": "pipelines.formats.orc.reader.OrcOrigin",
    "avro": "pipelines.formats.avro.origin.AvroOrigin",
    "files": "pipelines.formats.whole_files.WholeFileOrigin",
    "bigquery": "pipelines.formats.bigquery_rows.BigQueryOrigin",
    "dialect": "pipelines.formats.dialect.Dialect",
    "spans": "pipelines.formats.dialect.Spans",
    "avro_piece": "pipelines.formats.avro.container.Piece",
}
"""Origins, and what they are made of, by the names that they have in a file."""

_LENGTH = 8
_MOST_DEPTH = 20
_KIND = "kind"


class StoredRowsError(ValueError):
    """Raised when bytes are not a group of rows that this module has written."""


@dataclass(frozen=True)
class StoredRows:
    """Holds a group of rows that was kept.

    Attributes:
      origin: where the rows come from.
      batch: the rows.
      first: number of the first row in the origin.
    """

    origin: Origin
    batch: pa.RecordBatch
    first: int


def stored(origin: Origin, batch: pa.RecordBatch, first: int) -> bytes:
    """Returns a group of rows as bytes."""
    blocks = _Blocks()
    head = {"batch": blocks.add_batch(batch), "first": first, "origin": _encoded(origin, blocks, 0)}
    text = json.dumps([head, [len(block) for block in blocks.parts]], ensure_ascii=False)
    encoded = text.encode("utf-8", "surrogateescape")
    return b"".join([len(encoded).to_bytes(_LENGTH, "little"), encoded, *blocks.parts])


def restored(data: bytes) -> StoredRows:
    """Returns the group of rows in bytes.

    Raises:
      StoredRowsError: they are something else, or are cut short.
    """
    try:
        length = int.from_bytes(data[:_LENGTH], "little")
        head, sizes = json.loads(data[_LENGTH : _LENGTH + length].decode("utf-8", "surrogateescape"))
        view, at, blocks = memoryview(data), _LENGTH + length, []
        for size in sizes:
            blocks.append(view[at : at + size])
            at += size
        if at != len(data):
            raise StoredRowsError(f"{len(data):,} bytes, where {at:,} were announced")
        found = _Found(blocks)
        origin = _decoded(head["origin"], found)
        if not isinstance(origin, Origin):
            raise StoredRowsError("there is no origin")
        return StoredRows(origin, found.batch(head["batch"]), int(head["first"]))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OSError, pa.ArrowException) as error:
        raise StoredRowsError(f"not a group of prepared rows: {error}") from None


class _Blocks:
    """Collects the bytes of values; a batch that comes twice is written once."""

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self._batches: list[tuple[pa.RecordBatch, int]] = []

    def add(self, part: Any) -> int:
        self.parts.append(part)
        return len(self.parts) - 1

    def add_batch(self, batch: pa.RecordBatch) -> int:
        for known, place in self._batches:
            if known is batch or _is_same(known, batch):
                return place
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        self._batches.append((batch, place := self.add(memoryview(sink.getvalue()))))
        return place


def _is_same(one: pa.RecordBatch, other: pa.RecordBatch) -> bool:
    """Tells whether two batches are views of the same memory."""
    if one.num_rows != other.num_rows or not one.schema.equals(other.schema, check_metadata=True):
        return False
    return all(_places(a) == _places(b) for a, b in zip(one.columns, other.columns, strict=True))


def _places(array: pa.Array) -> list[Any]:
    return [array.offset, *(buffer and buffer.address for buffer in array.buffers())]


class _Found:
    """Reads values out of blocks of bytes."""

    def __init__(self, blocks: list[memoryview]) -> None:
        self._blocks = blocks
        self._batches: dict[int, pa.RecordBatch] = {}

    def plain(self, place: int) -> bytes:
        return bytes(self._blocks[place])

    def batch(self, place: int) -> pa.RecordBatch:
        if place not in self._batches:
            with pa.ipc.open_stream(pa.py_buffer(self._blocks[place])) as reader:
                self._batches[place] = reader.read_next_batch()
        return self._batches[place]


def _encoded(value: Any, blocks: _Blocks, depth: int) -> Any:
    """A value as JSON; what JSON does not have is an object with a member `kind`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if depth > _MOST_DEPTH:
        raise StoredRowsError("an origin is nested too deeply")
    if isinstance(value, bytes):
        return {_KIND: "bytes", "at": blocks.add(value)}
    if isinstance(value, np.ndarray):
        return {_KIND: "numbers", "at": blocks.add(np.ascontiguousarray(value, "<i8").tobytes())}
    if isinstance(value, pa.RecordBatch):
        return {_KIND: "batch", "at": blocks.add_batch(value)}
    if isinstance(value, pa.Array):
        return {_KIND: "array", "at": blocks.add_batch(pa.record_batch([value], ["values"]))}
    if isinstance(value, (list, tuple)):
        of_bytes = value and all(isinstance(each, bytes) for each in value)
        if of_bytes and isinstance(value, list):
            return {_KIND: "byte_list", "at": blocks.add_batch(pa.record_batch([pa.array(value, pa.binary())], ["v"]))}
        parts = [_encoded(each, blocks, depth + 1) for each in value]
        return parts if isinstance(value, list) else {_KIND: "tuple", "parts": parts}
    if isinstance(value, frozenset):
        return {_KIND: "set", "parts": [_encoded(each, blocks, depth + 1) for each in sorted(value)]}
    if isinstance(value, Mapping):
        pairs = [[_encoded(key, blocks, depth + 1), _encoded(each, blocks, depth + 1)] for key, each in value.items()]
        return {_KIND: "mapping", "pairs": pairs}
    name = _name_of(f"{type(value).__module__}.{type(value).__qualname__}")
    state = value.__getstate__() if hasattr(value, "__getstate__") else vars(value)
    if isinstance(value, tuple) or not isinstance(state, dict):
        raise StoredRowsError(f"an origin has a value of {type(value).__name__}, which is not stored")
    return {_KIND: "object", "class": name, "state": _encoded(dict(state), blocks, depth + 1)}


def _decoded(value: Any, found: _Found) -> Any:
    if isinstance(value, list):
        return [_decoded(each, found) for each in value]
    if not isinstance(value, dict):
        return value
    kind = value[_KIND]
    if kind == "bytes":
        return found.plain(value["at"])
    if kind == "numbers":
        return np.frombuffer(found.plain(value["at"]), "<i8").astype(np.int64)
    if kind == "batch":
        return found.batch(value["at"])
    if kind == "array":
        return found.batch(value["at"]).column(0)
    if kind == "byte_list":
        return found.batch(value["at"]).column(0).to_pylist()
    if kind == "tuple":
        return tuple(_decoded(each, found) for each in value["parts"])
    if kind == "set":
        return frozenset(_decoded(each, found) for each in value["parts"])
    if kind == "mapping":
        return {_decoded(key, found): _decoded(each, found) for key, each in value["pairs"]}
    if kind != "object":
        raise StoredRowsError(f"a value of an unknown kind, {str(kind)[:40]!r}")
    made_of: Any = _class_of(value["class"])
    made = made_of.__new__(made_of)
    for name, each in _decoded(value["state"], found).items():
        object.__setattr__(made, name, each)
    return made


@cache
def _class_of(name: str) -> type[Any]:
    module, _, attribute = CLASSES[name].rpartition(".")
    found: type[Any] = getattr(importlib.import_module(module), attribute)
    return found


@cache
def _name_of(place: str) -> str:
    for name, known in CLASSES.items():
        if known == place:
            return name
    raise StoredRowsError(f"rows of {place} cannot be stored")
