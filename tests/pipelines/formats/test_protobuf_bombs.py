"""Small descriptors and messages of protobuf that would take all memory or time are refused or dead letters."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pytest

from pipelines.formats import FormatError
from pipelines.formats.protobuf import cost as our_cost
from pipelines.formats.protobuf.descriptor import MessageType
from tests.support import processes
from tests.support.commands import ROOT
from tests.support.protobuf_bombs import (
    BOMBS,
    DOUBLE,
    MANY,
    MESSAGE,
    MIB,
    ONE,
    add,
    decoded,
    described,
    lists,
    many,
    reader,
)


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


def test_bombs_take_a_bounded_memory() -> None:
    module = "tests.support.protobuf_bombs"
    code = f"import json; from {module} import measured; print(json.dumps(measured()))"
    done = processes.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=400, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    assert {name: tuple(counts[1:]) for name, counts in found.items()} == {name: b[2] for name, b in BOMBS.items()}
    assert {name: peak >> 20 for name, (peak, *_) in found.items() if peak > 1 << 30} == {}
