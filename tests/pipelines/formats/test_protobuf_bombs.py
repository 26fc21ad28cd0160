"""Small descriptors and messages of protobuf that would take all memory or time are refused or dead letters."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2

from pipelines.flows.decode import MessageDecoder
from pipelines.formats import FormatError, ReadSpec
from pipelines.formats.protobuf import cost as our_cost
from pipelines.formats.protobuf.descriptor import MessageType
from pipelines.formats.protobuf.message import ProtobufReader
from pipelines.rows.messages import Messages
from pipelines.rows.origin import RejectedRow
from tests.conftest import ROOT
from tests.pipelines.formats.peak_memory import peak_memory

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


def levels(file: Any, count: int, uses: int = 1, label: int = ONE) -> None:
    """Types M0, M1, ..., each of which uses the next one so many times."""
    for level in range(count):
        message = file.message_type.add(name=f"M{level}")
        for use in range(uses if level + 1 < count else 0):
            add(message, f"f{use}", MESSAGE, label, f"M{level + 1}")
        if level + 1 == count:
            add(message, "x", DOUBLE)


def everyone(file: Any, count: int) -> None:
    """Types each of which has fields of all."""
    for each in range(count):
        message = file.message_type.add(name=f"M{each}")
        for other in range(count):
            add(message, f"f{other}", MESSAGE, ONE, f"M{other}")


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


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (partial(levels, count=30, uses=2), "more than 65,536 fields"),
        (partial(levels, count=30, uses=2, label=MANY), "more than 65,536 fields|nested deeper"),
        (partial(levels, count=8, uses=50), "more than 65,536 fields"),
        (partial(everyone, count=20), "more than 65,536 fields"),
        (partial(levels, count=1000), "nested deeper than 48 levels"),
        (partial(levels, count=40, label=MANY), "nested deeper than 48 levels"),
        (partial(many, count=70_000), "more than 65,536 message types"),
    ],
    ids=["twice", "lists twice", "fifty times", "everyone", "deep", "deep lists", "many"],
)
def test_a_type_beyond_a_bound_is_refused_by_its_rule(build: Callable[[Any], None], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        MessageType(described(build), "M0")


@pytest.mark.parametrize(
    "build",
    [
        partial(levels, count=12, uses=2),
        partial(levels, count=45),
        partial(levels, count=24, label=MANY),
        partial(everyone, count=5),
    ],
    ids=["twice", "deep", "deep lists", "everyone"],
)
def test_types_within_the_bounds_are_read(build: Callable[[Any], None]) -> None:
    assert decoded(reader(build), [b"", b"\x0a\x00"]) == (2, [])


@pytest.mark.parametrize(
    "payload",
    [b"\x0b" * 2 * MIB, b"\x22\xff\xff\xff\xff\x7f", b"\x12\xff\xff\x7f\x01", b"\x1a" * 1_400_000],
    ids=["groups", "a length", "a count", "lengths"],
)
def test_a_message_that_cannot_be_decoded_is_a_dead_letter_alone(payload: bytes) -> None:
    rows, (rejected,) = decoded(reader(lists), [b"\x0a\x00"] * 10 + [payload] + [b"\x0a\x00"] * 10)
    assert rows == 20
    assert rejected.position == 10
    assert rejected.payload == payload


def test_a_large_message_is_measured_before_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = reader(lists)
    text = b"\x12" + b"\xff\xff\x7f" + b"\x01" * 0x1FFFFF
    assert len(text) > found._type.costs.max_bytes
    assert decoded(found, [text, b"\x0a\x00" * 500_000])[0] == 2
    monkeypatch.setattr(our_cost, "DECODED_BYTES", 8 * MIB)
    message = decoded(reader(lists), [b"\x0a\x00" * 500_000])[1][0].message
    assert "a message may take 8,388,608 at most" in message


def test_a_pull_is_decoded_in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.formats.message.DECODED_BYTES", 100_000)
    found = reader(lists)
    payloads = [b"\x0a\x00" * (n % 9) for n in range(1000)]
    windows = found.windows(pa.array(payloads, pa.large_binary()))
    assert len(windows) > 3
    assert decoded(found, payloads) == (1000, [])


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


def test_bombs_take_a_bounded_memory() -> None:
    module = "tests.pipelines.formats.test_protobuf_bombs"
    code = f"import json; from {module} import measured; print(json.dumps(measured()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=400, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    assert {name: tuple(counts[1:]) for name, counts in found.items()} == {name: b[2] for name, b in BOMBS.items()}
    assert {name: peak >> 20 for name, (peak, *_) in found.items() if peak > 1 << 30} == {}
