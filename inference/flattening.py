"""Takes columns apart for the tensors of an input: flat values, and the numbers that say where they belong."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inference.columns.coercion import is_list, list_lengths
from inference.errors import OutputError
from model.specs import TensorSpec

Integers = npt.NDArray[np.int64]


def dense(array: pa.Array, spec: TensorSpec) -> tuple[pa.Array, tuple[int, ...]]:
    """Takes apart a column whose lists have one length on each level.

    Args:
      array: values without nulls, [rows].
      spec: the input.

    Returns:
      The flat values, and the shape that they have in the tensor.

    Raises:
      OutputError: lists of one level have different lengths.
    """
    sizes = [len(array)]
    while is_list(array.type):
        lengths = list_lengths(array)
        if len(lengths) and (lengths != lengths[0]).any():
            raise OutputError(f"input '{spec.name}': rows with lists of different lengths in one tensor")
        sizes.append(int(lengths[0]) if len(lengths) else 0)
        array = array.flatten()
    if spec.shape is not None and len(sizes) < len(spec.shape):
        sizes += [1] * (len(spec.shape) - len(sizes))
    return array, tuple(sizes)


def ragged(array: pa.Array, spec: TensorSpec) -> tuple[pa.Array, tuple[int, ...], list[Integers]]:
    """Takes apart a column for a ragged input.

    Returns:
      The flat values, their shape, and the row splits of each ragged dimension, the outermost first.
    """
    splits = []
    for _ in spec.components[1:]:
        splits.append(np.concatenate([[0], np.cumsum(list_lengths(array))]))
        array = array.flatten()
    inner = tuple(size for size in (spec.shape or ())[1 + len(splits) :] if size is not None)
    while is_list(array.type):
        array = array.flatten()
    return array, (len(array) // (math.prod(inner) or 1), *inner), splits


def sparse(array: pa.Array, spec: TensorSpec) -> tuple[pa.Array, Integers, Integers]:
    """Takes apart a column for a sparse matrix, whose rows are filled from the left, as tf.io.VarLenFeature does.

    Returns:
      The flat values, their indices [values, 2], and the shape of the matrix.
    """
    lengths = list_lengths(array)
    starts = np.cumsum(lengths) - lengths
    rows = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    places = np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(starts, lengths)
    width = spec.shape[1] if spec.shape and len(spec.shape) == 2 and spec.shape[1] else lengths.max(initial=0)
    return array.flatten(), np.stack([rows, places], axis=1), np.array([len(lengths), int(width)], np.int64)
