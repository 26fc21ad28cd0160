"""Converts Arrow arrays to TensorFlow tensors, and back. TensorFlow is handed in, so importing this costs nothing.

| array | tensor |
|---|---|
| numbers | [batch], a view of the column turned into a tensor in one copy |
| dictionary of strings | [batch], the dictionary once, then `tf.gather` by the indices |
| strings | [batch], through a dictionary where values repeat |
| lists of one length | [batch, n], [batch, n, m] |
| lists of any length | the components of a ragged or sparse input |
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from inference import flattening
from inference.columns.bound import InputBinding, arrow_type
from inference.columns.coercion import is_bytes, is_list, is_text, list_lengths
from inference.errors import OutputError
from model.specs import TensorSpec


def shape_key(array: pa.Array) -> npt.NDArray[np.int64]:
    """Returns what rows must have in common to stand in one dense tensor: the list lengths, [rows, levels] int64.

    Rows whose inner lists differ among themselves get a key of their own.
    """
    lengths = list_lengths(array)
    flat = array.flatten()
    if not is_list(flat.type):
        return lengths[:, None]
    inner = shape_key(flat)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    first = np.zeros((len(lengths), inner.shape[1]), np.int64)
    full = lengths > 0
    first[full] = inner[bounds[:-1][full]]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    uneven = np.unique(owner[(inner != first[owner]).any(axis=1)])
    first[uneven] = -1 - uneven[:, None]
    return np.concatenate([lengths[:, None], first], axis=1)


Words = dict[int, tuple[pa.Buffer, Any]]
"""Dictionaries that are tensors already, by the address of their data (which they keep alive)."""


def to_tensors(tf: Any, array: pa.Array, bound: InputBinding, words: Words) -> dict[str, Any]:
    """Makes the tensors of one input, by the keyword that the model takes them under.

    Args:
      tf: the tensorflow module.
      words: kept between calls for slices of one batch, whose dictionary is converted once.
      array: values without nulls, of `bound.type` inside `bound.depth` lists, [rows].
      bound: the input.
    """
    spec = bound.spec
    if spec.kind == "ragged":
        flat, shape, splits = flattening.ragged(array, spec)
        values, *names = spec.components
        tensors = {name: tf.constant(each, tf.int64) for name, each in zip(names, splits, strict=True)}
        return {**tensors, values: _shaped(tf, _flat(tf, flat, spec.dtype, words), shape)}
    if spec.kind == "sparse":
        flat, indices, dense_shape = flattening.sparse(array, spec)
        values = _flat(tf, flat, spec.dtype, words)
        parts = (tf.constant(indices, tf.int64), values, tf.constant(dense_shape, tf.int64))
        return dict(zip(spec.components, parts, strict=True))
    flat, shape = flattening.dense(array, spec)
    return {spec.name: _shaped(tf, _flat(tf, flat, spec.dtype, words), shape)}


def _shaped(tf: Any, tensor: Any, shape: tuple[int, ...]) -> Any:
    return tensor if len(shape) == 1 else tf.reshape(tensor, shape)


def _flat(tf: Any, array: pa.Array, dtype: str, words: Words) -> Any:
    """A 1-D tensor of the values of an array without nulls."""
    if is_text(array.type):
        return _strings(tf, array, words)
    tensor = tf.convert_to_tensor(array.to_numpy(zero_copy_only=False))
    return tf.cast(tensor, dtype) if dtype == "bfloat16" else tensor


def _strings(tf: Any, array: pa.Array, words: Words) -> Any:
    if not pa.types.is_dictionary(array.type):
        encoded = array.dictionary_encode() if len(array) > 64 else None
        if encoded is None or len(encoded.dictionary) * 2 > len(array):
            return tf.constant(_objects(array), tf.string)
        array = encoded
    elif len(array.dictionary) > len(array):
        return tf.constant(_objects(array.dictionary_decode()), tf.string)
    dictionary = array.dictionary
    data = dictionary.buffers()[-1]
    known = words.get(data.address) if data is not None else None
    if known is None or len(known[1]) != len(dictionary):
        known = (data, tf.constant(_objects(dictionary), tf.string))
        if data is not None and not dictionary.offset:
            words[data.address] = known
    return tf.gather(known[1], array.indices.to_numpy(zero_copy_only=False))


def _objects(array: pa.Array) -> npt.NDArray[np.object_]:
    wanted = array if is_bytes(array.type) else array.cast(pa.large_binary())
    return np.asarray(wanted.to_numpy(zero_copy_only=False), dtype=object)


def output_type(spec: TensorSpec) -> pa.DataType:
    """Returns the Arrow type of an output's column: [batch] and [batch, 1] are plain values, others lists.

    An output of unknown rank is taken for [batch].
    """
    type = arrow_type(spec.dtype)
    if type is None:
        raise OutputError(f"output '{spec.name}' is a {spec.dtype}: no column can hold that")
    sizes = (spec.shape or (None,))[1:]
    if sizes == (1,) and spec.kind == "dense":
        sizes = ()
    for _ in sizes:
        type = pa.list_(type)
    return type


def from_tensor(tf: Any, tensor: Any, spec: TensorSpec, rows: int) -> pa.Array:
    """Returns the column of an output, [rows].

    Raises:
      OutputError: the tensor does not have one value (or list) for each row.
    """
    if isinstance(tensor, tf.SparseTensor):
        tensor = tf.RaggedTensor.from_sparse(tensor)
    if isinstance(tensor, tf.RaggedTensor):
        array = _from_ragged(tf, tensor)
    else:
        if tensor.dtype == tf.bfloat16:
            tensor = tf.cast(tensor, tf.float32)
        values = tensor.numpy()
        check_rows(values.shape, spec, rows)
        array = _from_numpy(values, depth=1 + (1 if is_list(output_type(spec)) else 0))
    return as_announced(array, spec, rows)


def check_rows(shape: tuple[int, ...], spec: TensorSpec, rows: int) -> None:
    """Raises OutputError if an output of such a shape does not have one value for each row."""
    if not shape or shape[0] != rows:
        found = f"{shape[0]} rows" if shape else "a single value"
        raise OutputError(f"output '{spec.name}' has {found} for a batch of {rows} rows")


def as_announced(array: pa.Array, spec: TensorSpec, rows: int) -> pa.Array:
    """Returns an output's values as the column that `output_type` says.

    Raises:
      OutputError: there is not one value (or list) for each row, or they are of another type.
    """
    wanted = output_type(spec)
    if len(array) != rows:
        raise OutputError(f"output '{spec.name}' has {len(array)} rows for a batch of {rows} rows")
    try:
        return array.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if is_text(wanted):
            raise OutputError(f"output '{spec.name}': the model's bytes are not UTF-8 text") from None
        raise OutputError(f"output '{spec.name}': {array.type} where {wanted} was announced") from None


def _from_numpy(values: npt.NDArray[Any], depth: int) -> pa.Array:
    flat = values.reshape(-1)
    return nested(pa.array(flat, pa.binary()) if values.dtype == object else pa.array(flat), values.shape, depth)


def nested(array: pa.Array, shape: tuple[int, ...], depth: int) -> pa.Array:
    """Returns the values of a dense tensor as an array of its rows.

    Args:
      array: the values, one after the other.
      shape: of the tensor.
      depth: in how many dimensions the column has its values; with one, [rows, 1] is plain values.
    """
    sizes = shape[1:]
    if sizes == (1,) and depth == 1:
        sizes = ()
    for size in reversed(sizes):
        count = len(array) // size if size else int(np.prod(shape[:-1]))
        offsets = np.arange(count + 1, dtype=np.int32) * size
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array


def _from_ragged(tf: Any, tensor: Any) -> pa.Array:
    values = tensor.flat_values
    if values.dtype == tf.bfloat16:
        values = tf.cast(values, tf.float32)
    array = _from_numpy(values.numpy(), depth=2)
    for splits in reversed(tensor.nested_row_splits):
        array = pa.ListArray.from_arrays(pa.array(splits.numpy(), pa.int32()), array)
    return array
