"""Defines what signatures are called with and give, whatever runtime calls them: arrays, without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Numbers = npt.NDArray[Any]
"""Values of any type but strings, in their shape; bool is numpy's, bfloat16 that of ml_dtypes."""


@dataclass(frozen=True)
class Strings:
    """Describes a dense tensor of strings.

    Attributes:
      values: the strings in one dimension, without nulls: Arrow's string or binary (large or not, also
        dictionary-encoded). Outputs are large_binary.
      shape: of the tensor.
    """

    values: pa.Array
    shape: tuple[int, ...]


Dense = Numbers | Strings


@dataclass(frozen=True)
class Ragged:
    """Describes a ragged tensor.

    Attributes:
      values: the flat values.
      splits: where rows begin and end, one vector for each ragged dimension, the outermost first.
    """

    values: Dense
    splits: tuple[Numbers, ...]


@dataclass(frozen=True)
class Sparse:
    """Describes a sparse tensor.

    Attributes:
      indices: [values, rank].
      values: [values].
      dense_shape: [rank].
    """

    indices: Numbers
    values: Dense
    dense_shape: Numbers


Output = Dense | Ragged | Sparse

_NUMPY = {
    "bool": "bool",
    **{name: name for name in ("float16", "float32", "float64", "complex64", "complex128")},
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def numpy_type(dtype: str) -> np.dtype[Any] | None:
    """Returns the type of arrays with values of a TensorFlow dtype; None for strings and for what has no arrays."""
    if dtype == "bfloat16":
        import ml_dtypes

        wanted: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return wanted
    name = _NUMPY.get(dtype)
    return None if name is None else np.dtype(name)


def shape_of(value: Dense) -> tuple[int, ...]:
    """Returns the shape of a dense value."""
    return tuple(value.shape)
