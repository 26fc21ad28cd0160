"""Finds what a model's graph does beside computing: operations on files, on the network, with code of the process.

A SavedModel is a program. TensorFlow runs whatever its graph says when the model is loaded and called, with the rights
of the process. Nothing here makes a model safe; it shows what a person should know before loading it.

What every model has is left out: its checkpoint is written and restored by functions that neither loading nor a
signature calls (TensorFlow restores by itself), and tables are filled from files in the model's own folder of assets.
"""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from model.graph_nodes import functions_called, node_name
from model.outside_operations import CHECKPOINT, WITHOUT_FUNCTIONS, Effect, effect_of
from model.proto_subset import entries
from model.saved_model_proto import asset_files

LOADING = "loading"
UNUSED = "unused"

_INIT_SIGNATURE = "__saved_model_init_op"
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_RESOURCE_FUNCTIONS = frozenset({"_create_resource", "_initialize", "_destroy_resource"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "TPUPartitionedCall"})
_BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
_SAME_VALUE = frozenset({"Identity", "Reshape", "ExpandDims", "Squeeze", "EnsureShape"})
_OF_VARIABLES = frozenset({"AssignVariableOp", "ReadVariableOp", "VarIsInitializedOp"})
_MAX_DEPTH = 50
_MAX_NAMED = 12
_MAX_SIGNATURES = 100

MAIN = ""
"""The scope of the nodes that are in no function."""


@dataclass(frozen=True)
class OutsideOperation:
    """Describes an operation of a model's graph that reaches outside of it.

    Attributes:
      operation: TensorFlow's name of it, for example "ReadFile"; "asset" for a file that the model calls its own and
        that is not in its folder.
      effect: what it does, for example "reads files".
      where: what runs it: "loading", "signature <name>", or "unused" where neither does.
    """

    operation: str
    effect: str
    where: tuple[str, ...]


def outside_operations(meta_graph: Any) -> tuple[OutsideOperation, ...]:
    """Finds the operations of a graph and its functions that reach outside.

    Args:
      meta_graph: a MetaGraphDef message.

    Returns:
      One for each kind of operation, sorted by name.
    """
    found: dict[tuple[str, str], set[str]] = {}
    graph = _Graph(meta_graph)
    for name in graph.assets_elsewhere:
        found.setdefault((f"asset {name}", "reads a file that is not in the model's folder"), set()).add(LOADING)
    callers = _callers(graph, meta_graph)
    for scope, nodes in graph.scopes.items():
        for node in nodes.values():
            effect = effect_of(node)
            if effect is None or (effect.file_input is not None and graph.is_own_file(scope, node, effect)):
                continue
            where = callers.of(scope, node.name)
            if node.op in CHECKPOINT and where <= {UNUSED}:
                continue
            found.setdefault((node.op, effect.does), set()).update(where)
    return tuple(
        OutsideOperation(operation, does, tuple(sorted(where if where == {UNUSED} else where - {UNUSED})))
        for (operation, does), where in sorted(found.items())
    )


def describe(operations: Iterable[OutsideOperation]) -> str:
    """Returns one line for people about operations that reach outside; "" if there are none."""
    named = [f"{each.operation} ({each.effect}; {', '.join(each.where[:3])})" for each in operations]
    if not named:
        return ""
    more = [f"and {len(named) - _MAX_NAMED} more"] if len(named) > _MAX_NAMED else []
    listed = ", ".join([*named[:_MAX_NAMED], *more])
    return f"its graph has operations that reach outside: {listed}; load only models you trust"


class _Graph:
    """The nodes of a meta graph by scope: those of the graph itself and those of each function."""

    def __init__(self, meta_graph: Any) -> None:
        graph = meta_graph.graph_def
        self.functions = {function.signature.name: function for function in graph.library.function}
        self.scopes: dict[str, Mapping[str, Any]] = {MAIN: {node.name: node for node in graph.node}}
        for name, function in self.functions.items():
            self.scopes[name] = {node.name: node for node in function.node_def}
        self.calls = {
            scope: {node.name: called for node in nodes.values() if (called := self._called(node))}
            for scope, nodes in self.scopes.items()
        }
        assets = asset_files(meta_graph)
        self._assets = {node_name(asset.tensor_info.name) for asset in assets if _is_inside(asset)}
        self.assets_elsewhere = sorted({asset.filename for asset in assets if not _is_inside(asset)})
        self._objects = meta_graph.object_graph_def.nodes
        self._concrete = entries(meta_graph.object_graph_def.concrete_functions)
        self._call_sites: dict[str, list[tuple[str, Any]]] = {}
        for scope, calls in self.calls.items():
            for name, called in calls.items():
                for function in called:
                    self._call_sites.setdefault(function, []).append((scope, self.scopes[scope][name]))
        self._known: dict[tuple[str, int], bool] = {}
        self._takers: dict[str, list[Any]] = {}
        for node in self.scopes[MAIN].values():
            for reference in node.input:
                self._takers.setdefault(node_name(reference), []).append(node)

    def _called(self, node: Any) -> tuple[str, ...]:
        """Lists the functions that a node names, if its operation is one that may."""
        if node.op in WITHOUT_FUNCTIONS and node.op not in self.functions:
            return ()
        return tuple(functions_called(node, self.functions))

    def is_own_file(self, scope: str, node: Any, effect: Effect) -> bool:
        """Tells whether the file that a node reads is one of the model's assets (or none at all, for a cache)."""
        inputs = [reference for reference in node.input if not reference.startswith("^")]
        at = effect.file_input
        return at is not None and at < len(inputs) and self._is_asset(scope, inputs[at], effect.may_be_empty, 0)

    def _is_asset(self, scope: str, reference: str, empty: bool, depth: int) -> bool:
        for _ in range(_MAX_DEPTH):
            name = node_name(reference)
            if scope == MAIN and name in self._assets:
                return True
            node = self.scopes[scope].get(name)
            if node is None:
                return depth < _MAX_DEPTH and self._is_asset_argument(scope, name, depth + 1)
            if node.op == "Const":
                value = entries(node.attr).get("value")
                return empty and value is not None and [*value.tensor.string_val] in ([], [b""])
            if node.op == "ReadVariableOp" and scope == MAIN:
                return depth < _MAX_DEPTH and self._is_asset_variable(node.input[0] if node.input else "", depth + 1)
            if node.op not in _SAME_VALUE or not node.input:
                return False
            reference = node.input[0]
        return False

    def _is_asset_variable(self, name: str, depth: int) -> bool:
        """Tells if a variable of the graph is only ever given an asset, which is how TensorFlow 2 keeps their paths."""
        takers = self._takers.get(node_name(name), [])
        given = [node.input[1] for node in takers if node.op == "AssignVariableOp" and len(node.input) > 1]
        only = all(node.op in _OF_VARIABLES for node in takers)
        return only and bool(given) and all(self._is_asset(MAIN, value, False, depth) for value in given)

    def _is_asset_argument(self, scope: str, name: str, depth: int) -> bool:
        """Tells whether a function gets an asset as this argument, wherever it is called."""
        function = self.functions.get(scope)
        arguments = [] if function is None else [argument.name for argument in function.signature.input_arg]
        if name not in arguments:
            return False
        at = arguments.index(name)
        if (scope, at) not in self._known:
            self._known[scope, at] = False  # of functions that call each other in a ring nothing is known
            given = [*self._bound(scope, at, len(arguments)), *self._passed(scope, at, depth)]
            self._known[scope, at] = bool(given) and all(given)
        return self._known[scope, at]

    def _bound(self, scope: str, at: int, count: int) -> Iterator[bool]:
        """Tells if the object graph binds an argument to an asset: captured tensors are a function's last arguments."""
        bound = self._concrete[scope].bound_inputs if scope in self._concrete else []
        position = at - (count - len(bound))
        if 0 <= position < len(bound) and 0 <= bound[position] < len(self._objects):
            entry = self._objects[bound[position]]
            yield entry.HasField("asset")

    def _passed(self, scope: str, at: int, depth: int) -> Iterator[bool]:
        for caller, node in self._call_sites.get(scope, ()):
            inputs = [reference for reference in node.input if not reference.startswith("^")]
            place = at + (node.op in _BRANCHES)
            known = node.op in _CALLS or node.op in _BRANCHES or node.op == scope
            yield known and place < len(inputs) and self._is_asset(caller, inputs[place], False, depth)


class _Callers:
    """What runs a node: by scope and, in the graph itself, by node."""

    def __init__(self, graph: _Graph) -> None:
        self._graph = graph
        self._nodes: dict[str, set[str]] = {}
        self._functions: dict[str, set[str]] = {}

    def add(self, label: str, tensors: Iterable[str], functions: Iterable[str] = ()) -> None:
        """Notes that `label` runs these tensors of the graph, and these functions, with all that they need."""
        nodes = self._graph.scopes[MAIN]
        waiting = [node_name(tensor) for tensor in tensors]
        called = list(functions)
        while waiting:
            name = waiting.pop()
            labels = self._nodes.setdefault(name, set())
            if name in nodes and label not in labels:
                labels.add(label)
                waiting += [node_name(reference) for reference in nodes[name].input]
                called += self._graph.calls[MAIN].get(name, ())
        while called:
            function = called.pop()
            labels = self._functions.setdefault(function, set())
            if function in self._graph.functions and label not in labels:
                labels.add(label)
                for names in self._graph.calls[function].values():
                    called += names

    def of(self, scope: str, node: str) -> set[str]:
        """What runs a node; {"unused"} if nothing does."""
        labels = self._nodes.get(node) if scope == MAIN else self._functions.get(scope)
        return labels or {UNUSED}


def _callers(graph: _Graph, meta_graph: Any) -> _Callers:
    callers = _Callers(graph)
    for count, (name, signature) in enumerate(entries(meta_graph.signature_def).items()):
        label = f"signature {name}" if count < _MAX_SIGNATURES else "further signatures"
        label = LOADING if name == _INIT_SIGNATURE else label
        tensors = [tensor for info in entries(signature.outputs).values() for tensor in _tensors(info)]
        callers.add(label, tensors, _functions_called(meta_graph, name))
    collections = entries(meta_graph.collection_def)
    for name in _INIT_COLLECTIONS:
        if name in collections:
            callers.add(LOADING, collections[name].node_list.value)
    callers.add(LOADING, (), _functions_of_resources(meta_graph))
    return callers


def _tensors(info: Any) -> list[str]:
    """The graph's tensors of one output."""
    sparse = info.coo_sparse
    names = [info.name, sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name]
    return [name for name in (*names, *(part.name for part in info.composite_tensor.components)) if name]


def _functions_called(meta_graph: Any, signature: str) -> list[str]:
    """The functions that the object graph has under `signatures`, which TensorFlow 2 calls for a signature."""
    objects = meta_graph.object_graph_def.nodes
    named = [child.node_id for child in objects[0].children if child.local_name == "signatures"] if objects else []
    return [
        name
        for at in named
        if 0 <= at < len(objects)
        for child in objects[at].children
        if child.local_name == signature
        for name in _functions_of(objects, child.node_id)
    ]


def _functions_of_resources(meta_graph: Any) -> list[str]:
    """The functions that TensorFlow 2 calls while it loads: tables and the like are created and filled by them."""
    objects = meta_graph.object_graph_def.nodes
    return [
        name
        for each in objects
        for child in each.children
        if child.local_name in _RESOURCE_FUNCTIONS
        for name in _functions_of(objects, child.node_id)
    ]


def _functions_of(objects: Any, at: int) -> list[str]:
    if not 0 <= at < len(objects):
        return []
    bare = objects[at].bare_concrete_function.concrete_function_name
    return [*objects[at].function.concrete_functions, *([bare] if bare else [])]


def _is_inside(asset: Any) -> bool:
    """Tells whether an asset's file name stays within the folder of assets, to which TensorFlow appends it."""
    name = posixpath.normpath(asset.filename.replace("\\", "/"))
    return not (name.startswith(("/", "../")) or name == ".." or "://" in asset.filename or name[1:2] == ":")
