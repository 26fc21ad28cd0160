"""Arrow's strings as TensorFlow's, and back, by the column.

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
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_NOTHING = pa.scalar(b"", pa.large_binary())
_ZERO = pa.scalar(b"\0", pa.large_binary())
_FEW = 64
"""Strings that are joined sooner here than by Arrow."""
_VERY_FEW = 4

_KEPT_COLUMNS, _KEPT_STRINGS, _KEPT_BYTES = 32, 4096, 1 << 18
"""Dictionaries whose views a thread keeps, and the most strings and bytes of one."""

_ALIGNMENT = 64
SIZE = 24
"""Bytes of a TF_TString."""

_SMALL, _LARGE, _OFFSET, _VIEW = range(4)

Views = npt.NDArray[np.uint64]


class Memory:
    """Gives numpy the bytes at an address: `np.asarray` makes an array of uint8 that keeps this object."""

    def __init__(self, address: int, size: int) -> None:
        self.__array_interface__ = {"version": 3, "shape": (size,), "typestr": "|u1", "data": (address, False)}


class _Kept(threading.local):
    """Views of dictionaries that this thread has had, by where those lie in memory."""

    def __init__(self) -> None:
        self.dictionaries: dict[tuple[int, ...], tuple[Views, pa.Array, pa.Array]] = {}


_KEPT = _Kept()


def views(array: pa.Array) -> tuple[Views, Any]:
    """Makes views of the strings of an array, [strings, 3], at an address that is a multiple of 64.

    They are views of a copy in which a zero follows each string: some operations, such as StringUpper, read up to one.

    Args:
      array: strings or bytes without nulls, dictionary-encoded or not.

    Returns:
      The views, and what must live as long as they are used.
    """
    if len(array) <= _VERY_FEW:
        return _one_by_one(array)
    if pa.types.is_dictionary(array.type):
        if len(array.dictionary) <= len(array):
            return _gathered(array)
        # A slice of a batch of different strings: most of its dictionary is of no use here.
        array = array.dictionary_decode()
    ended = _ended(array)
    out = _aligned(len(ended))
    _write(ended, out)
    return out, ended


def _one_by_one(array: pa.Array) -> tuple[Views, Any]:
    """Views of so few strings that each step of Arrow would cost more than all of them."""
    if pa.types.is_dictionary(array.type):
        known = array.dictionary
        values = [known[index].as_buffer() for index in integers(array.indices).tolist()]
    else:
        values = [item.as_buffer() for item in array]
    joined = np.frombuffer(b"\0".join([*values, b""]) or b"\0", np.uint8)
    out, place = _aligned(len(values)), joined.__array_interface__["data"][0]
    for row, value in enumerate(values):
        out[row] = (len(value) << 2 | _VIEW, place, 0)
        place += len(value) + 1
    return out, joined


def _gathered(array: pa.DictionaryArray) -> tuple[Views, Any]:
    """Views of a dictionary's strings, taken by the indices."""
    known, words = _known(array.dictionary)
    out = _aligned(len(array))
    if len(array):
        # The indices are Arrow's own: none is out of range. With "clip" numpy writes to its place at once.
        np.take(known, integers(array.indices), axis=0, out=out, mode="clip")
    return out, words


def _known(dictionary: pa.Array) -> tuple[Views, Any]:
    """Views of a dictionary's strings, and what must live as long; kept for the next slice of the same column."""
    small = len(dictionary) <= _KEPT_STRINGS and dictionary.nbytes <= _KEPT_BYTES
    kept = _KEPT.dictionaries
    key = (len(dictionary), dictionary.offset, *(buffer.address for buffer in dictionary.buffers()[1:] if buffer))
    if small and key in kept:
        known, words, _ = kept[key]
        return known, words
    words = _ended(dictionary)
    known = np.empty((len(words), 3), np.uint64)
    _write(words, known)
    if small:
        while len(kept) >= _KEPT_COLUMNS:
            del kept[next(iter(kept))]
        # With the dictionary, so that no other one comes to lie at these addresses.
        kept[key] = known, words, dictionary
    return known, words


def _ended(array: pa.Array) -> pa.Array:
    """The same strings as large_binary, each with a zero behind it."""
    wide = array.cast(pa.large_binary())
    if len(wide) > _FEW:
        return pc.binary_join_element_wise(wide, _NOTHING, _ZERO)
    offsets, data = offsets_of(wide), wide.buffers()[2]
    if not len(wide) or data is None:
        joined = bytes(len(wide))
    else:
        ends = offsets.tolist()
        whole = memoryview(data)
        joined = b"\0".join([*(whole[low:high] for low, high in zip(ends, ends[1:], strict=False)), b""])
    moved = offsets - offsets[0] + np.arange(len(offsets))
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(wide), [None, pa.py_buffer(moved), pa.py_buffer(joined)]
    )


def _aligned(count: int) -> Views:
    room = np.empty(count * SIZE + _ALIGNMENT, np.uint8)
    start = -room.__array_interface__["data"][0] % _ALIGNMENT
    return room[start : start + count * SIZE].view(np.uint64).reshape(count, 3)


def _write(ended: pa.Array, out: Views) -> None:
    """Writes views of strings with a zero behind each."""
    if not len(ended):
        return
    offsets = offsets_of(ended)
    out[:, 0] = ((offsets[1:] - offsets[:-1] - 1).astype(np.uint64) << np.uint64(2)) | np.uint64(_VIEW)
    out[:, 1] = offsets[:-1].astype(np.uint64) + np.uint64(ended.buffers()[2].address)
    out[:, 2] = 0


def offsets_of(array: pa.Array) -> npt.NDArray[np.int64]:
    """Returns where the strings of an array of large_binary begin in its data, and where the last one ends."""
    buffer = array.buffers()[1]
    if buffer is None or not buffer.size:
        return np.zeros(len(array) + 1, np.int64)
    return np.frombuffer(buffer, np.int64, len(array) + 1, array.offset * 8)


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
