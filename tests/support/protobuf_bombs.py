"""Makes protobuf types and messages that are small and would take all memory, and measures how much they take."""

from __future__ import annotations

import resource
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf import descriptor_pb2

from pipelines.flows.decode import MessageDecoder
from pipelines.formats import ReadSpec
from pipelines.formats.protobuf.descriptor import MessageType
from pipelines.formats.protobuf.message import ProtobufReader
from pipelines.rows.messages import Messages
from pipelines.rows.origin import RejectedRow
from tests.support.peak_memory import peak_memory

MIB = 1 << 20


DOUBLE, INT32, MESSAGE = 1, 5, 11


ONE, MANY = 1, 3


def described(build: Callable[[Any], None]) -> bytes:
    files = descriptor_pb2.FileDescriptorSet()
    build(files.file.add(name="bomb.proto", syntax="proto3"))
    return files.SerializeToString()


def add(message: Any, name: str, type: int, label: int = ONE, of: str = "") -> None:
    field = message.field.add(name=name, number=len(message.field) + 1, label=label, type=type)
    if of:
        field.type_name = f".{of}"


def many(file: Any, count: int) -> None:
    for each in range(count):
        add(file.message_type.add(name=f"M{each}"), "x", DOUBLE)


def lists(file: Any, width: int = 20) -> None:
    message = file.message_type.add(name="M0")
    add(message, "rows", MESSAGE, MANY, "Row")
    add(message, "numbers", INT32, MANY)
    add(message, "self", MESSAGE, MANY, "M0")
    add(message, "once", MESSAGE, ONE, "M0")
    row = file.message_type.add(name="Row")
    for each in range(width):
        add(row, f"x{each}", DOUBLE)


def wide(file: Any) -> None:
    message = file.message_type.add(name="M0")
    for each in range(4000):
        add(message, f"x{each}", DOUBLE)


def reader(build: Callable[[Any], None]) -> ProtobufReader:
    descriptor = described(build)
    options = {"descriptor": descriptor, "message": "M0", "framing": "none"}
    return ProtobufReader(ReadSpec(MessageType(descriptor, "M0").schema, options))


def decoded(found: ProtobufReader, payloads: list[bytes]) -> tuple[int, list[RejectedRow]]:
    """Rows and dead letters, without keeping the rows."""
    count = len(payloads)
    numbers = np.arange(count, dtype=np.int64)
    messages = Messages("x", pa.array(payloads, pa.binary()), numbers, numbers, 0, 0)
    rows, rejected = 0, []
    for item in MessageDecoder(found, "protobuf").decode(messages):
        if isinstance(item, RejectedRow):
            rejected.append(item)
        else:
            assert len(item.origin.positions()) == item.batch.num_rows
            rows += item.batch.num_rows
    return rows, rejected


BOMBS: dict[str, tuple[Callable[[Any], None], list[bytes], tuple[int, int]]] = {
    "rows": (lists, [b"\x0a\x00" * 800_000], (0, 1)),
    "itself": (lists, [b"\x1a\x00" * 1_100_000], (0, 1)),
    "many": (lists, [b"\x0a\x00" * 500] * 4000, (4000, 0)),
    "packed": (lists, [b"\x12\xfb\xff\xff\x07" + b"\x01" * (16 * MIB - 5)], (1, 0)),
    "empty": (wide, [b""] * 12_000, (12_000, 0)),
}


def measured() -> dict[str, list[int]]:
    """Peak of memory, rows and dead letters of each bomb."""
    resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30))
    found: dict[str, list[int]] = {}
    for name, (build, payloads, _) in BOMBS.items():
        ended: list[tuple[int, int]] = []
        peak = peak_memory(partial(count, reader(build), payloads, ended))
        found[name] = [peak, *ended[0]]
    return found


def count(found: ProtobufReader, payloads: list[bytes], ended: list[tuple[int, int]]) -> None:
    rows, rejected = decoded(found, payloads)
    ended.append((rows, len(rejected)))
