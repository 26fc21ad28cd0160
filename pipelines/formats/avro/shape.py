"""Computes how much memory the values of an Avro type take, and where a value ends, without decoding it.

Memory is estimated from above: from the type alone (`Layout.memory`), or of one value, by walking it
(`Layout.measure`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.formats.avro.container import CorruptError, read_varint
from pipelines.formats.base import FormatError
from pipelines.formats.limits import DECODED_BYTES, MAX_EMPTY_ROW_BYTES, MAX_VALUE_DEPTH

_ENDLESS = 1 << 62
_FIXED = {"null": 0, "boolean": 1, "float": 4, "double": 8}
_MAX_STEPS = 1 << 21
_WINDOW = 1 << 20


class EndsError(CorruptError):
    """Raised where bytes are no value of a type, so that it is not known where the next value begins."""


class TooLargeError(ValueError):
    """Raised for a value that is nested too deep, or that would take too much memory.

    Attributes:
      end: where the value ends; None if that is not known.
    """

    def __init__(self, message: str, end: int | None) -> None:
        super().__init__(message)
        self.end = end


@dataclass(eq=False)
class Shape:
    """Describes a type, as the simple schemas of `avro_schema` have it.

    Attributes:
      kind: number (of any length), fixed (of `width` bytes), bytes, union, record or array.
      width: bytes of each value of a fixed type.
      parts: fields, branches, or the one type of items; a recursive type is among its own parts.
      least: bytes of the smallest value.
      own: memory of a decoded value without its parts.
      cost: memory of a decoded value in which all lists are empty.
    """

    kind: str
    width: int = 0
    parts: list[Shape] = field(default_factory=list)
    least: int = 0
    own: int = 0
    cost: int = 0


class Layout:
    """Estimates the memory that rows of a schema take when they are decoded.

    Args:
      simple: the simple schema of a row.
      columnar: whether rows are decoded into columns; otherwise they are Python objects first, and perhaps JSON text.

    Attributes:
      shape: the shape of a row.
      recursive: whether a type contains itself.
    """

    def __init__(self, simple: Any, columnar: bool) -> None:
        builder = _Builder(columnar)
        self.shape = builder.shape(simple)
        builder.settle()
        self.recursive = bool(builder.repeated)
        # Copies included, and for text its escapes.
        self._per_text_byte = 3 if columnar else 12
        self._columnar = columnar
        self._per_byte = self._per_text_byte + builder.per_item_byte()

    def check(self) -> None:
        """Raises FormatError if rows have no bytes, have no end, or take too much memory with all lists empty."""
        if not self.shape.least:
            raise FormatError("rows of this schema have no bytes: a file of a few bytes could hold any number of them")
        if self.shape.least >= _ENDLESS:
            raise FormatError("a record always contains another one of its own type, so that no row has an end")
        if self.shape.cost > MAX_EMPTY_ROW_BYTES:
            raise FormatError(
                f"a row of this schema takes {self.shape.cost:,} bytes of memory even where it is empty, "
                f"and may take {MAX_EMPTY_ROW_BYTES:,} at most"
            )

    def memory(self, rows: int, nbytes: int) -> int:
        """Returns the most memory that so many rows of so many bytes together can take when decoded."""
        return rows * self.shape.cost + nbytes * self._per_byte

    def measure(self, data: bytes, start: int) -> tuple[int, int]:
        """Walks the row at `start` of `data`; returns where it ends, and the memory that it takes when decoded.

        Raises:
          EndsError: it is no row of the schema.
          TooLargeError: it is nested deeper than MAX_VALUE_DEPTH, or would take more than DECODED_BYTES.
        """
        walker = _Walker(data, start, self._columnar)
        walker.walk(self.shape)
        memory = walker.memory + (walker.at - start) * self._per_text_byte
        if walker.too_deep or memory > DECODED_BYTES:
            raise TooLargeError(walker.problem(memory), walker.at)
        return walker.at, memory


class _Builder:
    """Makes shapes; `repeated` are those of named types that are part of themselves."""

    def __init__(self, columnar: bool) -> None:
        self.columnar = columnar
        self.all: list[Shape] = []
        self.named: dict[str, Shape] = {}
        self.repeated: list[Shape] = []

    def shape(self, simple: Any) -> Shape:
        if isinstance(simple, str) and simple in self.named:
            self.repeated.append(self.named[simple])
            return self.named[simple]
        found = Shape("number")
        self.all.append(found)
        if isinstance(simple, list):
            found.kind, found.parts = "union", [self.shape(branch) for branch in simple]
            found.own = 1
            found.cost = found.own + max((part.cost for part in found.parts), default=0)
        elif isinstance(simple, str):
            found.kind, found.width = ("fixed", _FIXED[simple]) if simple in _FIXED else ("number", 0)
            found.kind = "bytes" if simple == "bytes" else found.kind
            size = 25 if found.kind == "bytes" else found.width + 1 if found.kind == "fixed" else 9
            found.own = found.cost = size if self.columnar else size + 60
        elif simple["type"] == "fixed":
            found.kind, found.width = "fixed", int(simple["size"])
            found.own = found.cost = found.width + (1 if self.columnar else 80)
        elif simple["type"] == "array":
            found.kind, found.parts = "array", [self.shape(simple["items"])]
            found.own = found.cost = 9 if self.columnar else 140
        else:
            found.kind, self.named[simple["name"]] = "record", found
            found.least = _ENDLESS
            found.parts = [self.shape(each["type"]) for each in simple["fields"]]
            found.own = 1 if self.columnar else 280 + sum(_text_of(each["name"]) for each in simple["fields"])
            found.cost = found.own + sum(part.cost for part in found.parts)
        found.least = _least(found)
        return found

    def settle(self) -> None:
        """Corrects `least` of types that were looked at within themselves."""
        changed = bool(self.repeated)
        while changed:
            changed = False
            for shape in self.all:
                least = _least(shape)
                changed = changed or least != shape.least
                shape.least = least

    def per_item_byte(self) -> int:
        """The most memory that items of lists, and values within values of their own type, take for each byte."""
        dynamic = [shape.parts[0] for shape in self.all if shape.kind == "array"] + self.repeated
        return max((-(-shape.cost // max(shape.least, 1)) for shape in dynamic), default=0)


def _least(shape: Shape) -> int:
    if shape.kind == "fixed":
        return shape.width
    if shape.kind == "record":
        return min(sum(part.least for part in shape.parts), _ENDLESS)
    if shape.kind == "union":
        return min(1 + min((part.least for part in shape.parts), default=_ENDLESS), _ENDLESS)
    return 1


def _text_of(name: str) -> int:
    """Memory of a field's name in a row's JSON text, and of its place in the record."""
    return 2 * len(json.dumps(name)) + 40


class _Walker:
    """Walks one value with a stack of its own, so that its depth does not matter."""

    def __init__(self, data: bytes, at: int, columnar: bool) -> None:
        self.data, self.at, self.columnar = data, at, columnar
        self.memory = 0
        self.too_deep = False

    def problem(self, memory: int) -> str:
        if self.too_deep:
            return f"it has more than {MAX_VALUE_DEPTH} records, lists or maps within each other"
        return f"it takes {memory:,} bytes of memory or more when decoded, and may take {DECODED_BYTES:,} at most"

    def walk(self, shape: Shape) -> None:
        steps = _MAX_STEPS
        # None ends a record or a list. A pair is a list's items, and how many of its current block are left.
        stack: list[Shape | tuple[Shape, int] | None] = [shape]
        depth = 0
        while stack:
            steps -= 1
            if not steps:
                raise TooLargeError(self.problem(max(self.memory, DECODED_BYTES)), None)
            top = stack.pop()
            if top is None:
                depth -= 1
            elif isinstance(top, tuple):
                item, count = top
                if count:
                    stack += [(item, count - 1), item]
                elif count := self.block():
                    stack.append((item, 0 if self.skipped(item, count) else count))
            elif top.kind == "union":
                branch = self.number()
                if not 0 <= branch < len(top.parts):
                    raise EndsError("it has a union's branch that its schema does not have")
                # In columns, a null takes as much as a value.
                self.memory += max(top.cost - top.parts[branch].cost, 1) if self.columnar else 1
                stack.append(top.parts[branch])
            elif top.kind in ("record", "array"):
                depth += 1
                self.too_deep = self.too_deep or depth > MAX_VALUE_DEPTH
                self.memory += top.own
                stack.append(None)
                stack += reversed(top.parts) if top.kind == "record" else [(top.parts[0], 0)]
            else:
                self.memory += top.own
                self.value(top)

    def value(self, shape: Shape) -> None:
        if shape.kind == "fixed":
            self.skip(shape.width)
        elif shape.kind == "bytes":
            self.skip(self.number())
        else:
            self.number()

    def block(self) -> int:
        """Tells how many items follow, 0 at a list's end."""
        count = self.number()
        if count < 0:
            count = -count
            if self.number() < 0:
                raise EndsError("a list has a part of negative size")
        if count > len(self.data) - self.at:
            raise EndsError(f"a list has {count:,} items in {len(self.data) - self.at:,} bytes")
        return count

    def skipped(self, item: Shape, count: int) -> bool:
        """Skips items all at once, if they are of a type that allows it."""
        if item.kind == "fixed":
            self.skip(count * item.width)
        elif item.kind == "number":
            left = count
            while left:
                window = np.frombuffer(self.data, np.uint8, min(_WINDOW, 10 * left, len(self.data) - self.at), self.at)
                ends = np.flatnonzero(window < 0x80)[:left]
                if not len(ends):
                    raise EndsError("it ends before its schema does")
                self.at += int(ends[-1]) + 1
                left -= len(ends)
        else:
            return False
        self.memory += count * item.own
        return True

    def skip(self, count: int) -> None:
        if not 0 <= count <= len(self.data) - self.at:
            raise EndsError("it has a length that is negative, or that goes beyond its end")
        self.at += count

    def number(self) -> int:
        if self.at < len(self.data) and (byte := self.data[self.at]) < 0x80:
            self.at += 1
            return (byte >> 1) ^ -(byte & 1)
        try:
            found, self.at = read_varint(self.data, self.at)
        except CorruptError as error:
            raise EndsError(str(error)) from None
        return found
