"""Limits how much a request may hold, checked before anything of that size is made."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.serving.errors import invalid, too_large
from model.serving.options import Options
from model.specs import TensorSpec

MAX_RANK = 32
"""Most dimensions of an input, and most levels of nested lists."""

HELD_BODIES = 16
"""How many requests of the largest size are held at a time, all together; further ones are told to come again."""

_BYTES_OF_BODY = 4
_BYTES_AN_ITEM = 8
_STRING_BYTES = 24
_BLOCK = 4 * 2**20


@dataclass(frozen=True)
class Limits:
    """Describes the limits of one request.

    Attributes:
      rows: most rows.
      input_bytes: most bytes of all inputs together, as arrays. JSON never needs more than four times its own size.
      json_items: most lists, objects and members of objects in a body of JSON, each of which costs the memory of many
        bytes of JSON.
    """

    rows: int
    input_bytes: int
    json_items: int

    @classmethod
    def of(cls, options: Options) -> "Limits":
        """Returns the limits that follow from the command line."""
        size = options.max_body_bytes
        return cls(options.max_request_rows, size * _BYTES_OF_BODY, max(size // _BYTES_AN_ITEM, 1000))

    def check_rows(self, rows: int) -> None:
        """Raises RequestError if a request of so many rows is not taken."""
        if rows > self.rows:
            raise too_large(
                f"the request has {rows:,} rows, and --max-request-rows allows {self.rows:,}; send fewer rows a request"
            )

    def check_input_bytes(self, size: int) -> None:
        """Raises RequestError if a request whose inputs take so many bytes is not taken."""
        if size > self.input_bytes:
            raise too_large(
                f"the inputs take {size:,} bytes as arrays, and {self.input_bytes:,} are allowed, four times "
                "--max-body-mb; send fewer rows a request"
            )

    def check_json(self, body: bytes) -> None:
        """Raises RequestError if a body of JSON would cost too much to read."""
        if len(body) <= self.json_items:
            return
        # Brackets and colons in strings do not count, but are rarely so many that it matters.
        if _items(body) > self.json_items and _items_outside_strings(body) > self.json_items:
            raise too_large(
                f"the body has more than {self.json_items:,} lists, objects and members, the limit with this "
                "--max-body-mb; send fewer rows a request, or columns in place of rows"
            )


def check_sizes(sizes: Sequence[int], spec: TensorSpec) -> None:
    """Raises RequestError if no array can have such sizes: too many, negative ones, or beyond what can be indexed."""
    if len(sizes) > MAX_RANK:
        raise invalid(f"input '{spec.name}' has more than {MAX_RANK} dimensions; send {MAX_RANK} at most")
    if any(size < 0 for size in sizes):
        raise invalid(f"input '{spec.name}' has shape {list(sizes)}; a size is 0 or more")
    # An array without values may have other dimensions of any size, but not for numpy.
    if math.prod(size for size in sizes if size) >= 2**60:
        raise invalid(f"input '{spec.name}' has shape {list(sizes)}, beyond any memory; send fewer rows a request")


def string_bytes(sizes: Sequence[int], values: Sequence[bytes]) -> int:
    """Returns the bytes of a tensor of strings, without those of the values that are given.

    Args:
      sizes: the tensor's shape.
      values: the strings that are given; the last one is repeated until the shape is filled.
    """
    size = math.prod(sizes)
    repeats = max(size - len(values), 0)
    return size * _STRING_BYTES + (repeats * len(values[-1]) if repeats and len(values) else 0)


def _items(data: bytes) -> int:
    return data.count(b"[") + data.count(b"{") + data.count(b":")


def _items_outside_strings(body: bytes) -> int:
    """Counts lists, objects and members, in blocks: a string's quotes are those with an even run of backslashes."""
    items = 0
    inside = np.uint8(0)
    carried = b""
    for at in range(0, len(body), _BLOCK):
        block = carried + body[at : at + _BLOCK]
        # A block ends before its last backslashes, whose meaning the next character decides.
        end = len(block.rstrip(b"\\")) if at + _BLOCK < len(body) else len(block)
        block, carried = block[:end], block[end:]
        # What is left has no escaped quote.
        block = block.replace(b"\\\\", b"").replace(b'\\"', b"")
        data = np.frombuffer(block, np.uint8)
        if not len(data):
            continue
        within = np.bitwise_xor.accumulate((data == ord('"')).view(np.uint8)) ^ inside
        inside = within[-1]
        items += _items(data[within == 0].tobytes())
    return items
