"""Builds a graph of two operations on strings by hand: it tests this TensorFlow's strings, and copies strings.

What becomes of views in a graph are views of the same memory. A graph that keeps strings between calls must
be given strings of TensorFlow's own instead. `Substr` makes those: of each string, all of it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.runtime import strings
from model.runtime.arrays import Strings
from model.runtime.errors import OpError, UnsupportedModelError
from model.runtime.library import CallStatus, OpOutput, opened, session_options
from model.runtime.tensors import STRING, Feed, from_tensor

_Used = TypeVar("_Used")
_INT64 = 9
_OTHERWISE = "its strings lie otherwise in memory than those"
_TESTED = (0, 22, 23, 10_000, 1, 0, 64)


class StringGraph:
    """Gives strings back, as they are and copied."""

    def __init__(self) -> None:
        lib = opened()
        self._lib = lib
        graph = lib.TF_NewGraph()
        source = self._operation(graph, "Placeholder", "x", {"dtype": STRING})
        start = self._constant(graph, "start", 0)
        length = self._constant(graph, "length", np.iinfo(np.int64).max)
        self._source = OpOutput(source, 0)
        self._same = OpOutput(self._operation(graph, "Identity", "same", {"T": STRING}, source), 0)
        self._copy = OpOutput(self._operation(graph, "Substr", "copy", {"T": _INT64}, source, start, length), 0)
        with session_options(callers_thread=True) as options, CallStatus() as status:
            self._session = lib.TF_NewSession(graph, options, status.pointer)
            status.check()

    def copied(self, values: Strings) -> int:
        """Returns a tensor with copies of strings; whoever gets it deletes it."""
        return self._run(values, self._copy, lambda pointer: pointer)

    def tested(self, values: Strings, test: Callable[[int], bool]) -> bool:
        """Tells whether a test is passed by the tensor of the strings as they came, which are views, and by copies."""
        return all(self._run(values, wanted, test) for wanted in (self._same, self._copy))

    def _run(self, values: Strings, wanted: OpOutput, use: Callable[[int], _Used]) -> _Used:
        with Feed() as feed, CallStatus() as status:
            feed.add(values)
            given, found = (ctypes.c_void_p * 1)(*feed.pointers), (ctypes.c_void_p * 1)()
            sources, outputs = (OpOutput * 1)(self._source), (OpOutput * 1)(wanted)
            self._lib.TF_SessionRun(
                self._session, None, sources, given, 1, outputs, found, 1, None, 0, None, status.pointer
            )
            status.check()
            pointer = found[0]
            assert pointer is not None
            # Before the memory goes that the strings may be views of.
            return use(pointer)

    def _operation(self, graph: int, kind: str, name: str, types: dict[str, int], *inputs: int) -> int:
        lib = self._lib
        description = lib.TF_NewOperation(graph, kind.encode(), name.encode())
        for each in inputs:
            lib.TF_AddInput(description, OpOutput(each, 0))
        for attribute, code in types.items():
            lib.TF_SetAttrType(description, attribute.encode(), code)
        return self._finished(description)

    def _constant(self, graph: int, name: str, value: int) -> int:
        lib = self._lib
        description = lib.TF_NewOperation(graph, b"Const", name.encode())
        lib.TF_SetAttrType(description, b"dtype", _INT64)
        with Feed() as feed, CallStatus() as status:
            feed.add(np.array(value, np.int64), owned=True)
            lib.TF_SetAttrTensor(description, b"value", feed.pointers[0], status.pointer)
            status.check()
        return self._finished(description)

    def _finished(self, description: int) -> int:
        with CallStatus() as status:
            operation: int = self._lib.TF_FinishOperation(description, status.pointer)
            status.check()
        return operation


@functools.cache
def string_graph() -> StringGraph:
    """Returns the one graph of this process."""
    return StringGraph()


@functools.cache
def self_test() -> str:
    """Sends strings of many lengths through the graph; says what is wrong, or gives an empty string.

    It guards against a TensorFlow whose strings lie otherwise in memory: as views from Arrow, and as TensorFlow's own.
    """
    values = [bytes(i % 251 for i in range(length)) for length in _TESTED]
    taken = pa.array([b"-", *values], pa.large_binary()).slice(1)

    def come_back(pointer: int) -> bool:
        place = opened().TF_TensorData(pointer)
        raw = np.asarray(strings.Memory(place, len(values) * strings.SIZE)).reshape(-1, strings.SIZE)
        if not _agree(raw, values):
            return False
        found: Any = from_tensor(pointer)
        return bool(found.values.to_pylist() == values)

    try:
        graph = string_graph()
        for array in (taken, taken.cast(pa.binary()), taken.dictionary_encode()):
            views, _alive = strings.views(array)
            if not (_agree(views.view(np.uint8), values) and graph.tested(Strings(array, (len(array),)), come_back)):
                return _OTHERWISE
    except (OpError, MemoryError) as error:
        return f"it fails on a graph of two operations: {error}"
    return ""


def _agree(raw: npt.NDArray[np.uint8], values: list[bytes]) -> bool:
    """Whether TensorFlow's functions find each string where this program does; follows no address."""
    lib = opened()
    address = raw.__array_interface__["data"][0]
    starts, lengths = strings.places(raw, address)
    for i, value in enumerate(values):
        place = address + i * strings.SIZE
        at = ctypes.cast(lib.TF_StringGetDataPointer(place), ctypes.c_void_p).value or 0
        if not (lib.TF_StringGetSize(place) == lengths[i] == len(value)) or (value and at != starts[i]):
            return False
    return True


def check_library() -> None:
    """Opens TensorFlow's library and tests it, once in a process.

    Raises:
      UnsupportedModelError: it is not there, or not as it should be.
    """
    opened()
    wrong = self_test()
    if wrong:
        raise UnsupportedModelError(f"the installed tensorflow is unlike those it knows: {wrong}")
