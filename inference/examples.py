"""Serializes rows of columns as tf.Examples, encoded in C++ by tfx-bsl."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from inference.columns.bound import Binding
from inference.columns.coercion import is_list, is_text, list_lengths


def encode_examples(arrays: Sequence[pa.Array], binding: Binding) -> list[bytes]:
    """Encodes each row as a tf.Example with the features that the binding names; a missing value is a missing
    feature.
    """
    # The public names of it import TensorFlow.
    from tfx_bsl.cc.tfx_bsl_extension.coders import RecordBatchToExamplesEncoder

    columns = [_feature_lists(array) for array in arrays]
    batch = pa.RecordBatch.from_arrays(columns, names=[bound.spec.name for bound in binding.inputs])
    encoded: list[bytes] = RecordBatchToExamplesEncoder(None).Encode(batch)
    return encoded


def _feature_lists(array: pa.Array) -> pa.Array:
    """Values as the lists of bytes, float32 or int64 that a tf.Example holds; null for no feature at all."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    while is_list(array.type) and is_list(array.type.value_type):
        array = _without_inner_lists(array)
    leaves = array.flatten() if is_list(array.type) else array
    wanted = pa.binary() if is_text(leaves.type) else pa.float32() if pa.types.is_floating(leaves.type) else pa.int64()
    if is_list(array.type):
        return array.cast(pa.list_(wanted))
    present = array.is_valid()
    offsets = np.zeros(len(array) + 1, np.int32)
    np.cumsum(present.to_numpy(zero_copy_only=False), out=offsets[1:])
    mask = pa.compute.invert(present) if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), array.drop_null().cast(wanted), mask=mask)


def _without_inner_lists(array: pa.Array) -> pa.Array:
    """Lists of lists as lists of all their values: a tf.Example has flat lists only."""
    outer = np.zeros(len(array) + 1, np.int64)
    np.cumsum(list_lengths(array), out=outer[1:])
    inner = array.flatten()
    ends = np.zeros(len(inner) + 1, np.int64)
    np.cumsum(list_lengths(inner), out=ends[1:])
    mask = array.is_null() if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(ends[outer].astype(np.int32)), inner.flatten(), mask=mask)
