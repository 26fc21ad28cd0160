"""Loads a SavedModel into a session of TensorFlow 1, called by the names of its tensors."""

import importlib
from collections.abc import Callable
from typing import Any

from model.signature import serving_tags


class SessionModel:
    """Calls a SavedModel loaded as TensorFlow 1 does it: its graph, variables, tables and assets, and no Python
    objects.

    Args:
      path: the SavedModel's folder.
    """

    def __init__(self, path: str) -> None:
        self._tf: Any = importlib.import_module("tensorflow")
        v1 = self._tf.compat.v1
        self._graph = self._tf.Graph()
        with self._graph.as_default():
            self._session = v1.Session(graph=self._graph)
            meta_graph = v1.saved_model.loader.load(self._session, serving_tags(path), path)
        self._definitions = dict(meta_graph.signature_def)

    def function(self, signature: str) -> tuple[Callable[..., dict[str, Any]], dict[str, Any]]:
        """Returns what calls a signature, and the tf.TensorSpecs of its keywords.

        Calls may come from several threads at once.

        Args:
          signature: the signature's name.

        Raises:
          KeyError: there is no such signature, or it names a tensor that the graph does not have.
        """
        definition = self._definitions[signature]
        feeds: dict[str, Any] = {}
        for name, info in definition.inputs.items():
            feeds.update(self._components(name, info))
        from_info = self._tf.compat.v1.saved_model.get_tensor_from_tensor_info
        fetches = {name: from_info(info, self._graph) for name, info in definition.outputs.items()}
        run = self._session.make_callable(fetches, feed_list=list(feeds.values()))

        def call(**tensors: Any) -> dict[str, Any]:
            found = run(*[_value(tensors[name]) for name in feeds])
            return {name: self._tensor(value, fetches[name].dtype) for name, value in found.items()}

        return call, {name: self._tf.TensorSpec(t.shape, t.dtype, name) for name, t in feeds.items()}

    def _components(self, name: str, info: Any) -> dict[str, Any]:
        """Returns the graph's tensors that an input is fed by, by the keywords that `signature.py` gives them."""
        kind = info.WhichOneof("encoding")
        if kind == "coo_sparse":
            sparse = info.coo_sparse
            names = {
                f"{name}_indices": sparse.indices_tensor_name,
                f"{name}_values": sparse.values_tensor_name,
                f"{name}_dense_shape": sparse.dense_shape_tensor_name,
            }
        elif kind == "composite_tensor":
            parts = info.composite_tensor.components
            names = {f"{name}_component_{i}": part.name for i, part in enumerate(parts)}
        else:
            names = {name: info.name}
        return {keyword: self._graph.get_tensor_by_name(tensor) for keyword, tensor in names.items()}

    def _tensor(self, value: Any, dtype: Any) -> Any:
        """Returns a fetched value as what a signature of TensorFlow 2 gives."""
        v1 = self._tf.compat.v1
        if isinstance(value, v1.SparseTensorValue):
            return self._tf.SparseTensor.from_value(value)
        if isinstance(value, v1.ragged.RaggedTensorValue):
            nested = value.nested_row_splits
            return self._tf.RaggedTensor.from_nested_row_splits(value.flat_values, nested, validate=False)
        return self._tf.convert_to_tensor(value, dtype)


def _value(tensor: Any) -> Any:
    return tensor.numpy() if hasattr(tensor, "numpy") else tensor
