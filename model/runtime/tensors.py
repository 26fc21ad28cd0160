"""Arrays as tensors of the C API, and back.

| array | tensor |
|---|---|
| numbers | the array's own memory, which must live until the call has returned |
| numbers of a graph that keeps values between calls | a copy that TensorFlow owns |
| strings | views of one copy of them all, see `strings` |

TensorFlow itself copies numbers that do not begin at a multiple of 64 bytes. Memory that is not TensorFlow's own is
never written to, nor taken over by an output: see `from_tensor`.
"""

from __future__ import annotations

import ctypes
import functools
import math
from typing import Any

import numpy as np

from model.runtime import strings
from model.runtime.arrays import Dense, Numbers, Strings, numpy_type
from model.runtime.errors import UnsupportedModelError
from model.runtime.library import no_deallocator, opened
from model.saved_model_proto import dtype_name, dtype_number

STRING = 7


def type_code(dtype: str) -> int:
    """Returns the C API's number of a dtype. Raises UnsupportedModelError where arrays have no such type."""
    if dtype != "string" and numpy_type(dtype) is None:
        raise UnsupportedModelError(f"it has no arrays of {dtype}")
    return dtype_number(dtype)


class Feed:
    """Makes tensors of arrays for one call: they are deleted, and the arrays' memory is let go, when the block ends."""

    def __init__(self) -> None:
        self._lib = opened()
        self.pointers: list[int] = []
        self._alive: list[Any] = []

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *error: object) -> None:
        for pointer in self.pointers:
            self._lib.TF_DeleteTensor(pointer)
        self._alive.clear()

    def add(self, value: Dense, *, owned: bool = False) -> None:
        """Makes a tensor of an array.

        Args:
          value: numbers of a type that `numpy_type` gives, or strings.
          owned: TensorFlow gets a copy of numbers; strings cannot be copied here.
        """
        if isinstance(value, Strings):
            views, alive = strings.views(value.values)
            self._alive += [views, alive]
            self._new(STRING, value.shape, views.__array_interface__["data"][0], views.nbytes)
            return
        array = np.ascontiguousarray(value)
        code = _code(array.dtype)
        if owned:
            self._copied(code, array)
            return
        self._alive.append(array)
        self._new(code, value.shape, array.__array_interface__["data"][0], array.nbytes)

    def adopt(self, pointer: int) -> None:
        """Takes over a tensor that TensorFlow gave."""
        self.pointers.append(pointer)

    def _new(self, code: int, shape: tuple[int, ...], address: int, size: int) -> None:
        pointer = self._lib.TF_NewTensor(code, _sizes(shape), len(shape), address, size, no_deallocator(), None)
        self._keep(pointer, code, shape)

    def _copied(self, code: int, array: Numbers) -> None:
        pointer = self._lib.TF_AllocateTensor(code, _sizes(array.shape), array.ndim, array.nbytes)
        self._keep(pointer, code, array.shape)
        if array.nbytes:
            ctypes.memmove(self._lib.TF_TensorData(pointer), array.__array_interface__["data"][0], array.nbytes)

    def _keep(self, pointer: int | None, code: int, shape: tuple[int, ...]) -> None:
        if not pointer:
            raise MemoryError(f"TensorFlow makes no tensor of {dtype_name(code)} with shape {list(shape)}")
        self.pointers.append(pointer)


@functools.cache
def _code(dtype: np.dtype[Any]) -> int:
    return dtype_number(dtype.name)


def _sizes(shape: tuple[int, ...]) -> Any:
    return _sizes_type(len(shape))(*shape)


@functools.cache
def _sizes_type(rank: int) -> Any:
    return ctypes.c_int64 * rank


class _TensorMemory(strings.Memory):
    """The memory of a tensor, as numpy takes it; the tensor goes when the last array on it does."""

    def __init__(self, pointer: int, size: int) -> None:
        self._lib = opened()
        self._pointer = pointer
        super().__init__(self._lib.TF_TensorData(pointer), size)

    def __del__(self) -> None:
        self._lib.TF_DeleteTensor(self._pointer)


def from_tensor(pointer: int, *, copied: bool = False) -> Dense:
    """Makes an array of a tensor that a call gave, and takes the tensor over.

    Numbers stay where they are if nobody else has that memory: neither the caller, whose input may have become an
    output as it is, nor the graph, whose constants and variables may be outputs. Else they are copied.

    Args:
      pointer: the tensor.
      copied: numbers are copied in any case.
    """
    lib = opened()
    code = lib.TF_TensorType(pointer)
    shape = tuple(lib.TF_Dim(pointer, i) for i in range(lib.TF_NumDims(pointer)))
    count = math.prod(shape)
    if code == STRING:
        try:
            return Strings(strings.read(lib.TF_TensorData(pointer), count), shape)
        finally:
            lib.TF_DeleteTensor(pointer)
    dtype = numpy_type(dtype_name(code))
    if dtype is None:
        lib.TF_DeleteTensor(pointer)
        raise UnsupportedModelError(f"an output is a {dtype_name(code)}, of which there are no arrays")
    if not count:
        lib.TF_DeleteTensor(pointer)
        return np.empty(shape, dtype)
    moved = None if copied else lib.TF_TensorMaybeMove(pointer)
    array = np.asarray(_TensorMemory(moved or pointer, count * dtype.itemsize))
    if not moved:
        array = array.copy()
    return array.view(dtype).reshape(shape)
