"""Loads a SavedModel and calls one of its signatures. TensorFlow is imported when a model is loaded."""

import copy
import importlib
from collections.abc import Mapping
from typing import Any

from model.errors import ModelFormatError, ModelInputError, ModelLoadError
from model.loading import Loaded, is_missing_operation, said
from model.signature import read_signature
from model.specs import Signature, TensorSpec

_NEUTRAL_ROWS = 2


class SavedModel:
    """Calls a loaded SavedModel through one signature.

    Calls may come from several threads at once. Nothing is unpickled, but a graph is a program: TensorFlow runs what it
    says, while it loads and at each call, and that may read and write files. Load only models that are trusted;
    `outside.py` finds such operations.

    Args:
      path: the folder that holds saved_model.pb.
      signature: the name of the signature; None for serving_default, or the only one that there is.

    Attributes:
      signature: what the model takes and gives.

    Raises:
      ModelNotFoundError: there is no SavedModel at the path.
      ModelFormatError: there is a file, but it is not a SavedModel that can be served.
      SignatureNotFoundError: the model has no signature of that name.
      ModelLoadError: TensorFlow cannot load it.
    """

    def __init__(self, path: str, signature: str | None = None) -> None:
        remote = "://" in path
        self.signature: Signature = read_signature(
            path, signature, read_bytes=_read_with_tensorflow if remote else None
        )
        # A signature's function holds only weak references to the variables and tables that it uses.
        self._loaded = Loaded(path)
        self._path = path
        self._call_through(self.signature.name)

    def with_signature(self, signature: str) -> "SavedModel":
        """Returns the same loaded model, called through another of its signatures.

        Raises:
          SignatureNotFoundError: the model has no signature of that name.
        """
        other = copy.copy(self)
        remote = _read_with_tensorflow if "://" in self._path else None
        other.signature = read_signature(self._path, signature, read_bytes=remote)
        other._call_through(signature)
        return other

    def _call_through(self, signature: str) -> None:
        self._function, self._keywords = self._loaded.function(signature)
        self._composites = {spec.name: spec for spec in self.signature.inputs if spec.components}
        self._dense_only = not self._composites

    def warm_up(self) -> None:
        """Calls the model once with neutral values, so that the first real call does not pay for it.

        The values are two rows of zeros, empty strings, and tf.Examples with just the features that must be
        there. A model may reject them: that is ignored.

        Raises:
          ModelLoadError: TensorFlow does not have an operation of the model.
        """
        tf = _tensorflow()
        try:
            self(self._neutral_inputs())
        except (tf.errors.OpError, ValueError, TypeError, NotImplementedError) as error:
            if is_missing_operation(error):
                raise ModelLoadError(f"TensorFlow cannot run the model at {self._path}: {said(error)}") from error

    def __call__(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Calls the signature.

        Args:
          tensors: a tf.Tensor for each dense input, a tf.RaggedTensor or tf.SparseTensor for each ragged or
            sparse one (or, in its place, its dense `components`), all with the signature's dtypes.

        Returns:
          The outputs by name: tf.Tensor, tf.RaggedTensor or tf.SparseTensor.

        Raises:
          ModelInputError: an input is missing, or is not in the signature, or is not of the right kind.
          tensorflow.errors.OpError: the model fails on these values.
        """
        if not (self._dense_only and tensors.keys() == self._keywords.keys()):
            tensors = self._flatten(tensors)
        outputs: dict[str, Any] = self._function(**tensors)
        return outputs

    def call_for_one_row(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Calls a signature that has no dimension for rows, see `rows.py`.

        Args:
          tensors: as for a call, each with a first dimension of size one.

        Returns:
          The outputs by name, each with a first dimension of size one.
        """
        tf = _tensorflow()
        outputs = self({name: tensor[0] for name, tensor in tensors.items()})
        return {name: tf.expand_dims(output, 0) for name, output in outputs.items()}

    def _flatten(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        flat = {}
        for name, tensor in tensors.items():
            spec = self._composites.get(name)
            if spec is None or (name in spec.components and _is_dense(tensor)):
                flat[name] = tensor
            else:
                flat.update(zip(spec.components, self._components(spec, tensor), strict=True))
        if flat.keys() != self._keywords.keys():
            raise ModelInputError(self._mismatch(flat))
        return flat

    def _components(self, spec: TensorSpec, tensor: Any) -> tuple[Any, ...]:
        tf = _tensorflow()
        if spec.kind == "sparse" and isinstance(tensor, tf.SparseTensor):
            return tensor.indices, tensor.values, tensor.dense_shape
        if spec.kind == "ragged" and isinstance(tensor, tf.RaggedTensor):
            if tensor.ragged_rank == len(spec.components) - 1:
                tensor = tensor.with_row_splits_dtype(self._keywords[spec.components[1]].dtype)
                return tensor.flat_values, *tensor.nested_row_splits
            raise ModelInputError(
                f"input '{spec.name}' has {tensor.ragged_rank} ragged dimensions; "
                f"the model takes {len(spec.components) - 1}"
            )
        raise ModelInputError(f"input '{spec.name}' is a {type(tensor).__name__}; the model takes a {spec.kind} tensor")

    def _mismatch(self, flat: Mapping[str, Any]) -> str:
        missing = sorted(self._keywords.keys() - flat.keys())
        unknown = sorted(flat.keys() - self._keywords.keys())
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"unknown: {', '.join(unknown)}"] if unknown else []
        names = ", ".join(spec.name for spec in self.signature.inputs)
        return f"the inputs do not match signature '{self.signature.name}' ({'; '.join(parts)}); it takes {names}"

    def _neutral_inputs(self) -> dict[str, Any]:
        tf = _tensorflow()
        tensors: dict[str, Any] = {}
        for spec in self.signature.inputs:
            if spec.name == self.signature.examples_input:
                tensors[spec.name] = tf.constant([self._neutral_example()] * _NEUTRAL_ROWS)
            elif spec.kind == "ragged":
                tensors.update(self._neutral_ragged(spec))
            elif spec.kind == "sparse":
                sizes = _sizes(spec.shape)
                parts = (
                    tf.zeros([0, len(sizes)], tf.int64),
                    tf.zeros([0], spec.dtype),
                    tf.constant(sizes, tf.int64),
                )
                tensors.update(zip(spec.components, parts, strict=True))
            else:
                tensors[spec.name] = tf.zeros(_sizes(spec.shape), spec.dtype)
        return tensors

    def _neutral_ragged(self, spec: TensorSpec) -> dict[str, Any]:
        """Returns the components of two rows with one value each."""
        tf = _tensorflow()
        values, *splits = spec.components
        tensors = {values: tf.zeros(_sizes(self._keywords[values].shape), spec.dtype)}
        for name in splits:
            tensors[name] = tf.range(_NEUTRAL_ROWS + 1, dtype=self._keywords[name].dtype)
        return tensors

    def _neutral_example(self) -> bytes:
        train = _tensorflow().train
        features = {}
        for feature in self.signature.example_features:
            if feature.kind != "dense" or feature.has_default:
                continue
            count = 1
            for size in feature.shape:
                count *= max(size, 1)
            if feature.dtype == "string":
                features[feature.name] = train.Feature(bytes_list=train.BytesList(value=[b""] * count))
            elif feature.dtype == "int64":
                features[feature.name] = train.Feature(int64_list=train.Int64List(value=[0] * count))
            else:
                features[feature.name] = train.Feature(float_list=train.FloatList(value=[0.0] * count))
        data: bytes = train.Example(features=train.Features(feature=features)).SerializeToString()
        return data


def _tensorflow() -> Any:
    return importlib.import_module("tensorflow")


def _is_dense(tensor: Any) -> bool:
    return isinstance(tensor, _tensorflow().Tensor)


def _sizes(shape: Any) -> list[int]:
    """Returns sizes for neutral values: two rows, and one wherever a size is open."""
    if shape is None or getattr(shape, "rank", 0) is None:
        return [_NEUTRAL_ROWS]
    sizes = [1 if size is None else int(size) for size in shape]
    return [_NEUTRAL_ROWS if shape[0] is None else sizes[0], *sizes[1:]] if sizes else []


def _read_with_tensorflow(file: str) -> bytes:
    tf = _tensorflow()
    try:
        with tf.io.gfile.GFile(file, "rb") as stream:
            data: bytes = stream.read()
            return data
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(file) from error
    except tf.errors.OpError as error:
        raise ModelFormatError(f"{file} cannot be read: {error.message}") from error
