"""No engine and no Python of TensorFlow: pyarrow, TensorFlow's C API and two threads, written for this file and model.

Nothing is accounted for, retried or dead-lettered. The graph runs in the thread that calls it; strings are views of a
block's few different ones. Nothing that reads, predicts and writes these rows is expected to be faster: the limit of
the machine.
"""

from __future__ import annotations

import ctypes
import os

os.environ["TF_NUM_INTRAOP_THREADS"] = "1"

import numpy as np
import pandas  # noqa: F401 - pyarrow imports it at the first conversion from numpy, and imports are not timed
import pyarrow as pa

from model.proto_subset import entries
from model.runtime.library import CallStatus, OpOutput, no_deallocator, opened, session_options
from model.signature import read_meta_graph
from tests.benchmarks.contestants.births_csv import run_blocks
from tests.benchmarks.contestants.common import BATCH_ROWS, NUMBERS, STRINGS, Job, job_from_command_line, measure

FLOAT, STRING, VIEW, STRING_BYTES = 1, 7, 3, 24
LIB = opened()


class Model:
    """The packaged model, in one session of the C API."""

    def __init__(self, path: str) -> None:
        signature = entries(read_meta_graph(path).signature_def)["serving_default"]
        inputs, outputs = entries(signature.inputs), entries(signature.outputs)
        self.graph = LIB.TF_NewGraph()
        with session_options(callers_thread=True) as options, CallStatus() as status:
            tags = (ctypes.c_char_p * 1)(b"serve")
            self.session = LIB.TF_LoadSessionFromSavedModel(
                options, None, os.fsencode(path), tags, 1, self.graph, None, status.pointer
            )
            status.check()
        names = [inputs[name].name for name in (*STRINGS, *NUMBERS)]
        self.feeds = (OpOutput * len(names))(*map(self._output, names))
        self.fetches = (OpOutput * 1)(self._output(outputs["predictions"].name))

    def _output(self, tensor: str) -> OpOutput:
        name, index = tensor.split(":")
        return OpOutput(LIB.TF_GraphOperationByName(self.graph, name.encode()), int(index))

    def predict(self, batch: pa.RecordBatch) -> pa.Array:
        """Predicts a block in calls of BATCH_ROWS rows."""
        words = [views(batch[name].dictionary) for name in STRINGS]
        codes = [batch[name].indices.to_numpy() for name in STRINGS]
        numbers = [batch[name].to_numpy() for name in NUMBERS]
        results = np.empty(batch.num_rows, np.float32)
        strings = [aligned(BATCH_ROWS * STRING_BYTES).view(np.uint64).reshape(-1, 3) for _ in STRINGS]
        floats = [aligned(BATCH_ROWS * 4).view(np.float32) for _ in NUMBERS]
        for low in range(0, batch.num_rows, BATCH_ROWS):
            rows = min(BATCH_ROWS, batch.num_rows - low)
            tensors = []
            for (known, _), code, place in zip(words, codes, strings, strict=True):
                np.take(known, code[low : low + rows], axis=0, out=place[:rows], mode="clip")
                tensors.append(tensor(STRING, place[:rows], rows))
            for column, place in zip(numbers, floats, strict=True):
                place[:rows] = column[low : low + rows]
                tensors.append(tensor(FLOAT, place[:rows], rows))
            self._call(tensors, results[low : low + rows])
        return pa.array(results)

    def _call(self, tensors: list[int], result: np.ndarray) -> None:
        given, found = (ctypes.c_void_p * len(tensors))(*tensors), (ctypes.c_void_p * 1)()
        with CallStatus() as status:
            LIB.TF_SessionRun(
                self.session, None, self.feeds, given, len(tensors), self.fetches, found, 1, None, 0, None,
                status.pointer,
            )  # fmt: skip
            status.check()
        ctypes.memmove(result.ctypes.data, LIB.TF_TensorData(found[0]), result.nbytes)
        for pointer in (*tensors, found[0]):
            LIB.TF_DeleteTensor(pointer)


def aligned(size: int) -> np.ndarray:
    """Makes room for bytes at an address that is a multiple of 64."""
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size]


def views(strings: pa.Array) -> tuple[np.ndarray, bytes]:
    """Makes TensorFlow's strings as views of a copy; returns them, and the copy, which must live as long."""
    values = [value.encode() for value in strings.to_pylist()]
    joined = b"\0".join(values) + b"\0"
    place = np.frombuffer(joined, np.uint8).ctypes.data
    found = np.zeros((len(values), 3), np.uint64)
    for row, value in enumerate(values):
        found[row] = (len(value) << 2 | VIEW, place, 0)
        place += len(value) + 1
    return found, joined


def tensor(code: int, array: np.ndarray, rows: int) -> int:
    """Makes a tensor [rows] on an array's memory."""
    shape = (ctypes.c_int64 * 1)(rows)
    return LIB.TF_NewTensor(code, shape, 1, array.ctypes.data, array.nbytes, no_deallocator(), None)


def run(job: Job) -> int:
    """Loads the model and predicts the blocks."""
    return run_blocks(job, Model(job.model).predict)


if __name__ == "__main__":
    measure(run, job_from_command_line())
