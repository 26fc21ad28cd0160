"""Makes neutral values for a first call: two rows of zeros, empty strings, tf.Examples with just what must be there."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from model.example_proto import encode_example
from model.runtime.arrays import Dense, Strings, numpy_type
from model.specs import Signature, TensorSpec

_ROWS = 2

Keywords = Mapping[str, tuple[str, tuple[int | None, ...] | None]]
"""Type and shape of the dense tensors that a call takes, by keyword."""


def neutral_inputs(signature: Signature, keywords: Keywords) -> dict[str, Dense]:
    """Returns values for every input of a signature, or of its components.

    Args:
      signature: what is called.
      keywords: the dense tensors of the inputs.
    """
    inputs: dict[str, Dense] = {}
    for spec in signature.inputs:
        if spec.name == signature.examples_input:
            example = neutral_example(signature)
            inputs[spec.name] = Strings(pa.array([example] * _ROWS, pa.large_binary()), (_ROWS,))
        elif spec.kind == "ragged":
            # Two rows with one value each.
            values, *splits = spec.components
            inputs[values] = _zeros(spec.dtype, _sizes(keywords[values][1]))
            for name in splits:
                inputs[name] = np.arange(_ROWS + 1, dtype=keywords[name][0])
        elif spec.kind == "sparse":
            inputs.update(_sparse(spec))
        else:
            inputs[spec.name] = _zeros(spec.dtype, _sizes(spec.shape))
    return inputs


def _sparse(spec: TensorSpec) -> dict[str, Dense]:
    sizes = _sizes(spec.shape)
    parts: tuple[Dense, ...] = (
        np.zeros((0, len(sizes)), np.int64),
        _zeros(spec.dtype, (0,)),
        np.array(sizes, np.int64),
    )
    return dict(zip(spec.components, parts, strict=True))


def neutral_example(signature: Signature) -> bytes:
    """Returns a serialized tf.Example with the features that a model must have, as zeros and empty strings."""
    features: dict[str, list[bytes] | list[float] | list[int]] = {}
    for feature in signature.example_features:
        if feature.kind != "dense" or feature.has_default:
            continue
        count = math.prod(max(size, 1) for size in feature.shape)
        if feature.dtype == "string":
            features[feature.name] = [b""] * count
        elif feature.dtype == "int64":
            features[feature.name] = [0] * count
        else:
            features[feature.name] = [0.0] * count
    return encode_example(features)


def _zeros(dtype: str, sizes: tuple[int, ...]) -> Dense:
    if dtype == "string":
        return Strings(pa.array([b""] * math.prod(sizes), pa.large_binary()), sizes)
    return np.zeros(sizes, numpy_type(dtype))


def _sizes(shape: tuple[int | None, ...] | None) -> tuple[int, ...]:
    """Sizes for neutral values: two rows, and one wherever a size is open."""
    if shape is None:
        return (_ROWS,)
    sizes = [1 if size is None else size for size in shape]
    return tuple([_ROWS if shape[0] is None else sizes[0], *sizes[1:]] if sizes else [])
