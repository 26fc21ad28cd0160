"""Follows a signature's inputs through the graph of a SavedModel, across function calls.

Two things are learned so, which the signature itself does not say: which inputs are the parts of one ragged or
sparse tensor, and what a string input of tf.Examples is parsed into.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from model.graph_nodes import node_name
from model.proto_subset import entries
from model.saved_model_proto import (
    RAGGED_TENSOR_SPEC,
    SPARSE_TENSOR_SPEC,
    dtype_name,
    shape_of,
)
from model.specs import ExampleFeature, TensorSpec

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "TPUPartitionedCall"})
_SAME_VALUE = frozenset(
    {"Identity", "StopGradient", "Snapshot", "PlaceholderWithDefault", "EnsureShape", "Reshape", "ExpandDims"}
    | {"Squeeze"}
)
_MAX_DEPTH = 50
_MAX_STEPS = 10_000
_MAX_FEATURES = 100_000


@dataclass
class _Scope:
    """The nodes of the graph, or of one function as it is called at one place."""

    nodes: Mapping[str, Any]
    arguments: Mapping[str, int] = field(default_factory=dict)
    parent: "_Scope | None" = None
    call: Any = None
    depth: int = 0
    _consumers: dict[str, list[tuple[Any, int]]] | None = None

    def consumers(self, name: str) -> Sequence[tuple[Any, int]]:
        """Returns the nodes that take the tensor of a placeholder, argument or one-output node, with the place."""
        if self._consumers is None:
            self._consumers = {}
            for node in self.nodes.values():
                for index, reference in enumerate(data_inputs(node)):
                    self._consumers.setdefault(node_name(reference), []).append((node, index))
        return self._consumers.get(name, ())


class ModelGraph:
    """Holds the graph, the function library and the function signatures of one meta graph.

    Args:
      meta_graph: a MetaGraphDef message.
    """

    def __init__(self, meta_graph: Any) -> None:
        graph = meta_graph.graph_def
        self._root = _Scope({node.name: node for node in graph.node})
        self._functions = {function.signature.name: function for function in graph.library.function}
        self._signatures = entries(meta_graph.object_graph_def.concrete_functions)

    def composites(self, tensors: Mapping[str, str], specs: Mapping[str, TensorSpec]) -> list[TensorSpec]:
        """Finds the ragged and sparse inputs that a signature takes apart into dense ones.

        TensorFlow exports f(r: RaggedTensor) as a signature of the dense inputs `r` and `r_1`. The function that
        the signature calls still knows: its input types say so where it is part of the exported object, and
        otherwise the arguments that are parts of one tensor bear the same name.

        Args:
          tensors: the name of the graph's tensor for each input, by the input's name.
          specs: the dense inputs.

        Returns:
          A spec for each composite input; its components are names of `specs`.
        """
        level = [(self._root, {node_name(tensor): name for name, tensor in tensors.items()})]
        for _ in range(_MAX_DEPTH):
            calls = []
            for scope, names in level:
                for node in {id(n): n for name in names for n, _ in scope.consumers(name)}.values():
                    function = self._called(node)
                    if function is None:
                        continue
                    by_position = [names.get(node_name(reference)) for reference in data_inputs(node)]
                    found = self._composite_arguments(function, by_position, specs)
                    if found:
                        return found
                    arguments = function.signature.input_arg
                    inner = {a.name: n for a, n in zip(arguments, by_position, strict=False) if n is not None}
                    calls.append((self._enter(scope, node, function), inner))
            if not calls:
                break
            level = calls[:_MAX_DEPTH]
        return []

    def example_features(self, tensor: str) -> tuple[ExampleFeature, ...] | None:
        """Finds what a string tensor is parsed into as serialized tf.Examples.

        Args:
          tensor: the name of the graph's tensor.

        Returns:
          The features; () if the tensor is parsed but the features' names are not constants; None if no parsing
          op takes it.
        """
        waiting = [(self._root, node_name(tensor))]
        for _ in range(_MAX_STEPS):
            if not waiting:
                break
            scope, name = waiting.pop()
            for node, index in scope.consumers(name):
                if node.op in _PARSERS and index == 0:
                    return _PARSERS[node.op](scope, node)
                function = self._called(node)
                if node.op in _SAME_VALUE and index == 0:
                    waiting.append((scope, node.name))
                elif function is not None and index < len(function.signature.input_arg):
                    inner = self._enter(scope, node, function)
                    waiting.append((inner, function.signature.input_arg[index].name))
        return None

    def _called(self, node: Any) -> Any | None:
        if node.op in _CALLS:
            attribute = entries(node.attr).get("f")
            return self._functions.get(attribute.func.name) if attribute is not None else None
        return self._functions.get(node.op)

    def _enter(self, scope: _Scope, call: Any, function: Any) -> _Scope:
        depth = scope.depth + 1
        if depth > _MAX_DEPTH:
            return _Scope({}, depth=depth)
        nodes = {node.name: node for node in function.node_def}
        arguments = {argument.name: i for i, argument in enumerate(function.signature.input_arg)}
        return _Scope(nodes, arguments, scope, call, depth)

    def _composite_arguments(
        self, function: Any, names: Sequence[str | None], specs: Mapping[str, TensorSpec]
    ) -> list[TensorSpec]:
        signature = self._signatures.get(function.signature.name)
        if signature is not None:
            return _typed_composites(signature.canonicalized_input_signature, names, specs)
        return _named_composites(function, names, specs)


def data_inputs(node: Any) -> list[str]:
    """Returns a node's inputs without the control inputs."""
    return [reference for reference in node.input if not reference.startswith("^")]


def composite_spec(name: str, type_spec: Any, components: tuple[str, ...]) -> TensorSpec | None:
    """Returns the spec of a RaggedTensorSpec or SparseTensorSpec message; None for any other type."""
    state = type_spec.type_state.tuple_value.values
    if type_spec.type_spec_class == RAGGED_TENSOR_SPEC and len(state) >= 4 and state[2].int64_value > 0:
        kind = "ragged"
    elif type_spec.type_spec_class == SPARSE_TENSOR_SPEC and len(state) >= 2:
        kind = "sparse"
    else:
        return None
    shape = shape_of(state[0].tensor_shape_value)
    return TensorSpec(name, dtype_name(state[1].tensor_dtype_value), shape, kind, components)


def _typed_composites(signature: Any, names: Sequence[str | None], specs: Mapping[str, TensorSpec]) -> list[TensorSpec]:
    found = []
    position = 0
    for type_spec in _leaves(signature):
        size = _component_count(type_spec)
        parts = [name for name in names[position : position + size] if name is not None and name in specs]
        position += size
        if type_spec is not None and size > 1 and len(parts) == size:
            spec = composite_spec(parts[0], type_spec, tuple(parts))
            if spec is not None:
                found.append(spec)
    return found


def _leaves(value: Any, depth: int = 0) -> Iterator[Any | None]:
    """Yields the leaves of a nested signature in the order of the arguments: the type spec, None for a tensor."""
    if depth > _MAX_DEPTH:
        return
    if value.HasField("type_spec_value"):
        yield value.type_spec_value
    elif value.HasField("tensor_spec_value") or value.HasField("bounded_tensor_spec_value"):
        yield None
    for sequence in (value.list_value, value.tuple_value):
        for item in sequence.values:
            yield from _leaves(item, depth + 1)
    for pair in value.named_tuple_value.values:
        yield from _leaves(pair.value, depth + 1)
    for _, item in sorted(entries(value.dict_value.fields).items()):
        yield from _leaves(item, depth + 1)


def _component_count(type_spec: Any | None) -> int:
    if type_spec is None:
        return 1
    if type_spec.num_flat_components:
        return max(0, int(type_spec.num_flat_components))
    if type_spec.type_spec_class == SPARSE_TENSOR_SPEC:
        return 3
    state = type_spec.type_state.tuple_value.values
    if type_spec.type_spec_class == RAGGED_TENSOR_SPEC and len(state) >= 4:
        return max(0, int(state[2].int64_value)) + 1
    return 1


def _named_composites(function: Any, names: Sequence[str | None], specs: Mapping[str, TensorSpec]) -> list[TensorSpec]:
    written = {item.key: entries(item.value.attr).get("_user_specified_name") for item in function.arg_attr}
    groups: dict[bytes, list[str]] = {}
    for position, name in enumerate(names):
        attribute = written.get(position)
        if name is not None and name in specs and attribute is not None and attribute.s:
            groups.setdefault(attribute.s, []).append(name)
    candidates = (_guessed_composite([specs[name] for name in group]) for group in groups.values())
    return [spec for spec in candidates if spec is not None]


def _guessed_composite(parts: Sequence[TensorSpec]) -> TensorSpec | None:
    first, names = parts[0], tuple(part.name for part in parts)
    if names != (first.name, *(f"{first.name}_{i}" for i in range(1, len(parts)))) or len(parts) < 2:
        return None
    rank = first.shape[1] if first.shape is not None and len(first.shape) == 2 else None
    if rank is not None and 0 < rank < _MAX_DEPTH and len(parts) == 3 and parts[2].shape == (rank,):
        return TensorSpec(first.name, parts[1].dtype, (None,) * rank, "sparse", names)
    if all(part.dtype in ("int64", "int32") and part.shape in ((None,), None) for part in parts[1:]):
        shape = (None,) * len(parts) + first.shape[1:] if first.shape else None
        return TensorSpec(first.name, first.dtype, shape, "ragged", names)
    return None


def _parse_example_v2(scope: _Scope, node: Any) -> tuple[ExampleFeature, ...]:
    references = data_inputs(node)
    if len(references) < 5:
        return ()
    sparse, dense, ragged = (_strings(_constant(scope, reference)) for reference in references[2:5])
    return _features(scope, node, sparse, dense, ragged, references[5:])


def _parse_example_v1(scope: _Scope, node: Any) -> tuple[ExampleFeature, ...]:
    attributes = entries(node.attr)
    sparse_count = attributes["Nsparse"].i if "Nsparse" in attributes else 0
    dense_count = attributes["Ndense"].i if "Ndense" in attributes else 0
    references = data_inputs(node)
    if min(sparse_count, dense_count) < 0 or len(references) != 2 + sparse_count + 2 * dense_count:
        return ()
    keys = [_strings(_constant(scope, reference)) for reference in references[2 : 2 + sparse_count + dense_count]]
    names = [key[0] for key in keys if key]
    if len(names) != len(keys):
        return ()
    return _features(scope, node, names[:sparse_count], names[sparse_count:], [], references[2 + len(keys) :])


_PARSERS = {"ParseExample": _parse_example_v1, "ParseExampleV2": _parse_example_v2}


def _features(
    scope: _Scope,
    node: Any,
    sparse: Sequence[str] | None,
    dense: Sequence[str] | None,
    ragged: Sequence[str] | None,
    defaults: Sequence[str],
) -> tuple[ExampleFeature, ...]:
    if sparse is None or dense is None or ragged is None:
        return ()
    attributes = entries(node.attr)

    def types(name: str) -> list[str]:
        return [dtype_name(number) for number in attributes[name].list.type] if name in attributes else []

    sparse_types, dense_types, ragged_types = (
        types("sparse_types"),
        types("Tdense"),
        types("ragged_value_types"),
    )
    shapes = attributes["dense_shapes"].list.shape if "dense_shapes" in attributes else []
    lengths = (len(sparse_types), len(dense_types), len(ragged_types), len(shapes), len(defaults))
    if lengths != (len(sparse), len(dense), len(ragged), len(dense), len(dense)):
        return ()
    features = [ExampleFeature(n, t, "sparse", (), False) for n, t in zip(sparse, sparse_types, strict=True)]
    features += [ExampleFeature(n, t, "ragged", (), False) for n, t in zip(ragged, ragged_types, strict=True)]
    for name, dtype, shape, default in zip(dense, dense_types, shapes, defaults, strict=True):
        sizes = tuple(-1 if size is None else size for size in shape_of(shape) or ())
        constant = _constant(scope, default)
        has_default = constant is None or _element_count(constant) > 0
        features.append(ExampleFeature(name, dtype, "dense", sizes, has_default))
    return tuple(sorted(features, key=lambda feature: feature.name))


def _constant(scope: _Scope, reference: str) -> Any | None:
    """Returns the TensorProto that a reference stands for, through calls; None where it is computed."""
    for _ in range(4 * _MAX_DEPTH):
        name = node_name(reference)
        node = scope.nodes.get(name)
        if node is not None:
            if node.op == "Const":
                attribute = entries(node.attr).get("value")
                return attribute.tensor if attribute is not None else None
            inputs = data_inputs(node)
            if node.op not in _SAME_VALUE or not inputs:
                return None
            reference = inputs[0]
        elif name in scope.arguments and scope.parent is not None:
            inputs = data_inputs(scope.call)
            if scope.arguments[name] >= len(inputs):
                return None
            reference, scope = inputs[scope.arguments[name]], scope.parent
        else:
            return None
    return None


def _element_count(tensor: Any) -> int:
    return math.prod(dim.size for dim in tensor.tensor_shape.dim)


def _strings(tensor: Any | None) -> list[str] | None:
    if tensor is None:
        return None
    count = _element_count(tensor)
    values = [value.decode("utf-8", "replace") for value in tensor.string_val[:_MAX_FEATURES]]
    if count < 0 or count > _MAX_FEATURES or (count and not values):
        return None
    # A constant's trailing equal elements are written once.
    return (values + values[-1:] * (count - len(values)))[:count]
