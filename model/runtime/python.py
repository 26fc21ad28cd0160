"""Loads and calls a SavedModel by TensorFlow's Python, with the same arrays as the native runtime takes."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from model.errors import ModelLoadError
from model.runtime.arrays import Dense, Output, Ragged, Sparse, Strings
from model.savedmodel import SavedModel
from model.specs import Signature


class PythonModel:
    """Calls a loaded SavedModel through one signature, in TensorFlow's Python. Calls may come from several threads at
    once.

    Args:
      path: the folder that holds saved_model.pb.
      signature: the name of the signature.
      op_libraries: libraries of further operations that the graph uses.

    Attributes:
      saved_model: what is called, for callers with TensorFlow's own tensors.

    Raises:
      ModelError: as `SavedModel` does.
    """

    runtime = "python"

    def __init__(self, path: str, signature: str, *, op_libraries: tuple[str, ...] = ()) -> None:
        _load_operations(op_libraries)
        self.saved_model = SavedModel(path, signature)

    @property
    def signature(self) -> Signature:
        """Returns what the model takes and gives."""
        return self.saved_model.signature

    def with_signature(self, signature: str) -> PythonModel:
        """Returns the same loaded model, called through another of its signatures.

        Raises:
          SignatureNotFoundError: the model has no signature of that name.
        """
        other = object.__new__(PythonModel)
        other.saved_model = self.saved_model.with_signature(signature)
        return other

    def warm_up(self) -> None:
        """Calls the model once with neutral values, so that the first real call does not pay for it."""
        self.saved_model.warm_up()

    def __call__(self, inputs: Mapping[str, Dense], *, any_shape: bool = False) -> dict[str, Output]:
        """Calls the signature.

        Args:
          inputs: an array for each dense input, and for each of the `components` of a ragged or sparse one.
          any_shape: has no effect here: TensorFlow leaves it to the graph.

        Raises:
          ModelInputError: an input is missing or unknown.
          tensorflow.errors.OpError: the model fails on these values.
        """
        tf = importlib.import_module("tensorflow")
        outputs = self.saved_model({name: _tensor(tf, value) for name, value in inputs.items()})
        return {name: _output(tf, value) for name, value in outputs.items()}


def _load_operations(paths: tuple[str, ...]) -> None:
    for path in paths:
        if not os.path.isfile(path):
            raise ModelLoadError(f"model.op_libraries: there is no file {path}")
        tf = importlib.import_module("tensorflow")
        try:
            tf.load_op_library(os.path.realpath(path))
        except (tf.errors.OpError, OSError, RuntimeError) as error:
            raise ModelLoadError(f"model.op_libraries: {path} cannot be loaded: {error}") from error


def _tensor(tf: Any, value: Dense) -> Any:
    if not isinstance(value, Strings):
        return tf.constant(value)
    values = value.values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    objects = np.array(values.cast(pa.large_binary()).to_pylist(), object)
    return tf.constant(objects.reshape(value.shape), tf.string)


def _output(tf: Any, value: Any) -> Output:
    if isinstance(value, tf.SparseTensor):
        return Sparse(value.indices.numpy(), _dense(value.values), value.dense_shape.numpy())
    if isinstance(value, tf.RaggedTensor):
        return Ragged(_dense(value.flat_values), tuple(splits.numpy() for splits in value.nested_row_splits))
    return _dense(value)


def _dense(tensor: Any) -> Dense:
    value = tensor.numpy()
    if tensor.dtype == "string":
        flat = value.ravel().tolist() if isinstance(value, np.ndarray) else [value]
        return Strings(pa.array(flat, pa.large_binary()), tuple(tensor.shape))
    return np.asarray(value)
