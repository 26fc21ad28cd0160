"""Bounds how many rows a call of the model gets: by rows, by bytes, and by what it had no memory for."""

from __future__ import annotations

import logging
import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from inference.columns.bound import arrow_type
from inference.columns.coercion import is_list, is_text, list_lengths
from inference.sizes import decoded_bytes
from model.specs import Signature

MAX_BYTES = 256 << 20
"""Most bytes in a call, by default, estimated from inputs and outputs."""

_LARGE_TEXT = 1024
"""Bytes of a string, on average, from which on it is taken for something that the model decodes, such as a JPEG."""

_DECODED = 20
"""Times as large as a compressed string is what it becomes inside the model, roughly: of a JPEG 10 to 50 times."""

_LOG = logging.getLogger(__name__)

Piece = tuple[int, int]
"""First row and the row behind the last."""


class CallSize:
    """Cuts rows into calls.

    What a call needs is estimated: its inputs, outputs whose sizes the signature tells, and 20 times the bytes of
    strings that are larger than 1 KiB on average, as the model decodes them. Where a call had no memory nevertheless,
    further ones have half of its rows.

    Args:
      signature: what the model takes and gives.
      max_bytes: estimated bytes in a call.
    """

    def __init__(self, signature: Signature, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._output_bytes = sum(_row_bytes(spec.shape, spec.dtype) for spec in signature.outputs)
        self._most_rows: int | None = None

    def pieces(self, arrays: list[pa.Array], rows: int, max_rows: int) -> list[Piece]:
        """Cuts rows into pieces, each for a call.

        Args:
          arrays: the inputs.
          rows: how many there are.
          max_rows: most rows in a call.
        """
        if rows == 1:
            return [(0, 1)]
        cut: list[Piece] = []
        for low in range(0, rows, max_rows):
            high = min(low + max_rows, rows)
            inside = [array.slice(low, high - low) for array in arrays]
            if sum(map(_call_bytes, inside)) + self._output_bytes * (high - low) <= self._max_bytes:
                cut.append((low, high))
            else:
                cut += [(low + first, low + last) for first, last in self._cut(inside, high - low)]
        return [part for piece in cut for part in self.parts(piece)]

    def parts(self, piece: Piece) -> list[Piece]:
        """Cuts a piece that has more rows than the model had memory for; mostly gives the piece as it is."""
        low, high = piece
        most = self._most_rows
        if most is None or high - low <= most:
            return [piece]
        return [(first, min(first + most, high)) for first in range(low, high, most)]

    def lower(self, rows: int) -> None:
        """Remembers that the model had no memory for a call of so many rows."""
        most = max(rows // 2, 1)
        if self._most_rows is None or most < self._most_rows:
            self._most_rows = most
            _LOG.warning(
                "the model has no memory for %d rows in a call; it gets at most %d from now on (set batching.max_rows)",
                rows,
                most,
            )

    def _cut(self, arrays: list[pa.Array], rows: int) -> list[Piece]:
        """Cuts rows where their bytes add up to the most, each piece with one row at least."""
        ends = np.cumsum(sum((_bytes_of_rows(array) for array in arrays), np.full(rows, float(self._output_bytes))))
        cut: list[Piece] = []
        low = 0
        while low < rows:
            before = ends[low - 1] if low else 0.0
            high = max(int(np.searchsorted(ends, before + self._max_bytes, side="right")), low + 1)
            cut.append((low, high))
            low = high
        return cut


def is_exhausted(error: Exception) -> bool:
    """Tells whether a call failed because there was no memory for it."""
    return isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"


def _row_bytes(shape: tuple[int | None, ...] | None, dtype: str) -> int:
    """Returns the bytes of a row of numbers, as far as the shape tells; 0 for strings."""
    type = arrow_type(dtype)
    if shape is None or type is None or is_text(type):
        return 0
    return math.prod(size or 1 for size in shape[1:]) * max(int(type.bit_width) // 8, 1)


def _call_bytes(array: pa.Array) -> float:
    """Returns the bytes that an input stands for, of all its rows together."""
    size = decoded_bytes(array)
    return size * _growth(array, size)


def _bytes_of_rows(array: pa.Array) -> npt.NDArray[np.float64]:
    """Returns the bytes that an input stands for, of each row."""
    rows, size = len(array), decoded_bytes(array)
    if not is_text(array.type):
        if not is_list(array.type):
            return np.full(rows, size / max(rows, 1))
        counts = list_lengths(array).astype(np.float64)
        return counts * (size / max(float(counts.sum()), 1.0))
    if pa.types.is_dictionary(array.type):
        lengths = pc.binary_length(array.dictionary).take(array.indices)
    else:
        lengths = pc.binary_length(array)
    found: npt.NDArray[np.float64] = np.asarray(pc.fill_null(lengths, 0), np.float64) * _growth(array, size)
    return found


def _growth(array: pa.Array, size: int) -> int:
    return _DECODED if is_text(array.type) and size > _LARGE_TEXT * len(array) else 1
