"""Arrow's strings as TensorFlow's, and back, without touching one in Python where that can be.

A TF_TString has 24 bytes. The two lowest bits of the first one tell its kind:

| kind | bytes |
|---|---|
| 0, small | 1: length << 2, then up to 22 bytes of text |
| 1, large | 8: length << 2 | 1, 8: capacity, 8: address |
| 2, offset | 4: length << 2 | 2, 4: distance of the text from this place |
| 3, view | 8: length << 2 | 3, 8: address, 8: owner, none here |

A view's memory is not TensorFlow's: copies that the graph makes of a view are views of the same memory.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_ALIGNMENT = 64
SIZE = 24
"""Bytes of a TF_TString."""

_SMALL, _LARGE, _OFFSET, _VIEW = range(4)

Views = npt.NDArray[np.uint64]


class Memory:
    """Bytes at an address, as numpy takes them: `np.asarray` makes an array of uint8 that keeps this object."""

    def __init__(self, address: int, size: int) -> None:
        self.__array_interface__ = {"version": 3, "shape": (size,), "typestr": "|u1", "data": (address, False)}


def views(array: pa.Array) -> tuple[Views, Any]:
    """Makes views of the strings of an array, [strings, 3], at an address that is a multiple of 64.

    Args:
      array: strings or bytes without nulls, dictionary-encoded or not.

    Returns:
      The views, and what must live as long as they are used.
    """
    if pa.types.is_dictionary(array.type):
        return _gathered(array)
    array = _plain(array)
    out = _aligned(len(array))
    _write(array, out)
    return out, array


def _gathered(array: pa.DictionaryArray) -> tuple[Views, Any]:
    """Views of a dictionary's strings, taken by the indices."""
    words = _plain(array.dictionary)
    if len(words) > len(array):
        # A slice of a batch of different strings: most of its dictionary is of no use here.
        words = _plain(array.dictionary_decode())
        out = _aligned(len(words))
        _write(words, out)
        return out, words
    known = np.empty((len(words), 3), np.uint64)
    _write(words, known)
    out = _aligned(len(array))
    if len(array):
        # The indices are Arrow's own: none is out of range. With "clip" numpy writes to its place at once.
        np.take(known, integers(array.indices), axis=0, out=out, mode="clip")
    return out, words


def _plain(array: pa.Array) -> pa.Array:
    """The same strings, in an array with offsets."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return array
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return array
    return array.cast(pa.large_binary())


def _aligned(count: int) -> Views:
    room = np.empty(count * SIZE + _ALIGNMENT, np.uint8)
    start = -room.__array_interface__["data"][0] % _ALIGNMENT
    return room[start : start + count * SIZE].view(np.uint64).reshape(count, 3)


def _write(array: pa.Array, out: Views) -> None:
    if not len(array):
        return
    offsets, data = offsets_of(array), array.buffers()[2]
    starts = offsets[:-1].astype(np.uint64)
    out[:, 0] = ((offsets[1:] - offsets[:-1]).astype(np.uint64) << np.uint64(2)) | np.uint64(_VIEW)
    out[:, 1] = starts + np.uint64(data.address if data is not None else 0)
    out[:, 2] = 0


def offsets_of(array: pa.Array) -> npt.NDArray[np.signedinteger[Any]]:
    """Returns where the strings of an array begin in its data, and where the last one ends."""
    large = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    dtype: type[np.signedinteger[Any]] = np.int64 if large else np.int32
    buffer = array.buffers()[1]
    if buffer is None or not buffer.size:
        return np.zeros(len(array) + 1, dtype)
    return np.frombuffer(buffer, dtype, len(array) + 1, array.offset * np.dtype(dtype).itemsize)


def integers(array: pa.Array) -> npt.NDArray[Any]:
    """Returns the numbers of an array without nulls, as they lie in its memory."""
    dtype = np.dtype(str(array.type))
    if not len(array):
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def read(address: int, count: int) -> pa.Array:
    """Copies TensorFlow's strings into an array of large_binary.

    Args:
      address: of the first one.
      count: how many there are.
    """
    if not count:
        return pa.array([], pa.large_binary())
    raw = np.asarray(Memory(address, count * SIZE)).reshape(count, SIZE)
    if not (raw[:, 0] & 3).any():
        lengths = (raw[:, 0] >> 2).astype(np.int64)
        data = pa.py_buffer(raw[:, 1:][np.arange(SIZE - 1) < lengths[:, None]])
    else:
        starts, lengths = places(raw, address)
        get = ctypes.string_at
        pieces = [get(start, length) for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)]
        data = pa.py_buffer(b"".join(pieces))
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, [None, pa.py_buffer(offsets), data])


def places(raw: npt.NDArray[np.uint8], address: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Finds where the bytes of TensorFlow's strings are, and how many each has.

    Args:
      raw: the strings, [strings, 24].
      address: of the first one.
    """
    kinds = raw[:, 0] & 3
    lengths = (raw[:, 0] >> 2).astype(np.int64)
    starts = address + 1 + np.arange(len(raw), dtype=np.int64) * SIZE
    others = np.flatnonzero(kinds != _SMALL)
    words = raw.view(np.uint64)[others].astype(np.int64)
    lengths[others] = words[:, 0] >> 2
    starts[others] = np.where(kinds[others] == _VIEW, words[:, 1], words[:, 2])
    near = np.flatnonzero(kinds == _OFFSET)
    halves = raw.view(np.uint32)[near].astype(np.int64)
    lengths[near] = halves[:, 0] >> 2
    starts[near] = address + near * SIZE + halves[:, 1]
    return starts, lengths
