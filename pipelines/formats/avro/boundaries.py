"""Finds where Avro datums end: all of them are walked at once, a field at a time, before any is decoded.

A columnar decoder reads datums one after the other. One that is torn would take its neighbour's bytes for its own, and
a length that cannot be true would be looked up. So only datums that are exactly as long as their type says get there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.formats.avro.schema import Node

FINE, ENDS_EARLY, TOO_LONG, IMPOSSIBLE, UNSURE = range(5)
REASONS = {
    ENDS_EARLY: "it ends before its schema does",
    TOO_LONG: "it has more bytes than its schema says",
    IMPOSSIBLE: "it has a value that its schema does not allow",
}
"""What is wrong with a datum, in words."""

PADDING = 16
"""Bytes that have to follow the last datum."""

_STEPS = 20_000
"""Items of lists that are walked one by one, in all; what is left then is UNSURE."""

_WIDTHS = {"float": 4, "double": 8}
_INT_MAX = np.int64((1 << 31) - 1)

_Bytes = npt.NDArray[np.uint8]
_Numbers = npt.NDArray[np.int64]
Outcomes = npt.NDArray[np.int8]


def walk(record: Node, data: _Bytes, starts: _Numbers, ends: _Numbers) -> Outcomes:
    """Returns what is known of each datum of a columnar type.

    Args:
      record: the type.
      data: the bytes of all, and PADDING.
      starts: where each begins.
      ends: where each has to end.
    """
    walker = _Walker(data, starts, ends)
    walker.fields(record, np.arange(len(starts)))
    left = walker.at < ends
    walker.found[left & (walker.found == FINE)] = TOO_LONG
    return walker.found


class _Walker:
    """Holds, for each datum, where it is read; one that failed stays at its end."""

    def __init__(self, data: _Bytes, starts: _Numbers, ends: _Numbers) -> None:
        self.data, self.ends, self.at = data, ends, starts.copy()
        self.found: Outcomes = np.zeros(len(starts), np.int8)
        self.steps = _STEPS

    def fields(self, record: Node, rows: _Numbers) -> None:
        for child in record.children.values():
            self.value(child, rows)

    def value(self, node: Node, rows: _Numbers) -> None:
        simple = node.simple
        if node.nullable:
            branches = self.number(rows)
            self.fail(rows, (branches < 0) | (branches > 1), IMPOSSIBLE)
            other = 1 - simple.index("null")
            rows, simple = rows[branches == other], simple[other]
        if not len(rows):
            return
        if width := _width(simple):
            self.skip(rows, np.int64(width))
        elif simple == "boolean":
            bits = self.data[self.at[rows]]
            self.fail(rows, bits > 1, IMPOSSIBLE)
            self.skip(rows, np.int64(1))
        elif simple == "bytes":
            self.skip(rows, self.number(rows))
        elif isinstance(simple, str):
            values = self.number(rows)
            if node.kind == "enum":
                self.fail(rows, (values < 0) | (values >= len(node.symbols)), IMPOSSIBLE)
            elif simple == "int":
                self.fail(rows, (values < ~_INT_MAX) | (values > _INT_MAX), IMPOSSIBLE)
        elif simple["type"] == "record":
            self.fields(node, rows)
        elif simple["type"] == "array":
            self.items(node.children["item"], rows)

    def items(self, item: Node, rows: _Numbers) -> None:
        """Blocks of items, each with their number before it; a negative one has the block's size after it."""
        while len(rows):
            counts = self.number(rows)
            rows, counts = rows[counts != 0], counts[counts != 0]
            self.fail(rows, counts == np.iinfo(np.int64).min, IMPOSSIBLE)
            sized = rows[counts < 0]
            self.fail(sized, self.number(sized) < 0, IMPOSSIBLE)
            counts = np.abs(counts)
            # Every item has a byte at least.
            self.fail(rows, counts > self.ends[rows] - self.at[rows], ENDS_EARLY)
            width = 0 if item.nullable else _width(item.simple)
            if width:
                self.skip(rows, counts * width)
            else:
                self.each(item, rows, counts)
            rows = rows[self.found[rows] == FINE]
            self.steps -= 1
            if self.steps < 0:
                self.give_up(rows)
                return

    def each(self, item: Node, rows: _Numbers, counts: _Numbers) -> None:
        while True:
            going = (counts > 0) & (self.found[rows] == FINE)
            rows, counts = rows[going], counts[going] - 1
            if not len(rows):
                return
            self.steps -= 1
            if self.steps < 0:
                self.give_up(rows)
                return
            self.value(item, rows)

    def number(self, rows: _Numbers) -> _Numbers:
        """Avro's int or long."""
        at = self.at[rows]
        byte = self.data[at]
        value = (byte & 0x7F).astype(np.uint64)
        length = np.ones(len(rows), np.int64)
        more = np.flatnonzero(byte & 0x80)
        for place in range(1, 10):
            if not len(more):
                break
            byte = self.data[at[more] + place]
            value[more] |= (byte & np.uint64(0x7F)) << np.uint64(7 * place)
            length[more] += 1
            if place == 9:
                self.fail(rows[more], byte > 1, IMPOSSIBLE)
            more = more[byte >= 0x80]
        self.skip(rows, length)
        decoded = (value >> np.uint64(1)) ^ (np.uint64(0) - (value & np.uint64(1)))
        # Of a datum that has failed, the bytes are another's.
        return np.where(self.found[rows] == FINE, decoded.view(np.int64), 0)

    def skip(self, rows: _Numbers, count: Any) -> None:
        beyond = (count < 0) | (count > self.ends[rows] - self.at[rows])
        self.at[rows] += np.where(beyond, 0, count)
        self.fail(rows, beyond, ENDS_EARLY)

    def fail(self, rows: _Numbers, which: npt.NDArray[np.bool_], reason: int) -> None:
        if which.any():
            failed = rows[which]
            failed = failed[self.found[failed] == FINE]
            self.found[failed] = reason
            self.at[failed] = self.ends[failed]

    def give_up(self, rows: _Numbers) -> None:
        self.found[rows] = UNSURE
        self.at[rows] = self.ends[rows]


def _width(simple: Any) -> int:
    """Bytes of each value of a type, if all have as many and all bytes are valid; else 0."""
    if isinstance(simple, dict) and simple["type"] == "fixed":
        return int(simple["size"])
    return _WIDTHS.get(simple, 0) if isinstance(simple, str) else 0
