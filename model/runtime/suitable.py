"""Reads from saved_model.pb how a model can be run: whether TensorFlow's C++ core can do so alone, and how.

Nothing is loaded for it, so `check` tells as much as a run knows before it loads the model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from model.graph_nodes import functions_called, node_name
from model.specs import Signature

_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})
_VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_BESIDE = frozenset({"ResourceGather", "ResourceGatherNd", "ScatterNd", "ScatterNdNonAliasingAdd"})

_KEEPS = re.compile(
    "^(Assign|Scatter|Resource|StridedSliceAssign|Stack|Stage|MapStage|OrderedMapStage|Batch$|BatchFunction|Unbatch"
    "|GetSessionHandle|Send|_Send|_HostSend|Collective|WriteSummary|Rpc|InitializeTable)"
    "|Queue|Barrier|Dataset|Iterator|TableInsert|TableImport|Accumulator|Reader|Cache|Ref|SparseToTensorsMap"
)


def reason_against(meta_graph: Any, signature: Signature, folder: str) -> str:
    """Says why the native runtime cannot run a model, as far as its files tell; an empty string if nothing does.

    Args:
      meta_graph: a MetaGraphDef message.
      signature: the one that is called.
      folder: of the SavedModel; variables are looked for if it is a local one.
    """
    graph = meta_graph.graph_def
    functions = graph.library.function
    names = {node.op for node in graph.node} | {node.op for function in functions for node in function.node_def}
    python = sorted(names & _PYTHON)
    if python:
        return f"its graph runs Python ({python[0]})"
    if "://" not in folder and any(node.op in _VARIABLES for node in graph.node):
        index = os.path.join(folder, "variables", "variables.index")
        if not os.path.exists(index):
            return f"its variables are missing: there is no {index}"
    for spec in (*signature.inputs, *signature.outputs):
        if spec.dtype in ("resource", "variant") or spec.kind not in ("dense", "ragged", "sparse"):
            what = spec.dtype if spec.kind == "dense" else spec.kind
            return f"'{spec.name}' of signature '{signature.name}' is a {what} tensor"
    return ""


class Operations:
    """Lists the operations of a graph by what needs them.

    Args:
      meta_graph: a MetaGraphDef message.
    """

    def __init__(self, meta_graph: Any) -> None:
        graph = meta_graph.graph_def
        self._nodes = {node.name: node for node in graph.node}
        self._functions = {function.signature.name: function for function in graph.library.function}

    def keep_values(self, tensors: Iterable[str]) -> bool:
        """Tells whether computing tensors may leave some of the call's values in the graph, for later calls.

        If so, no input may lie in memory that is not TensorFlow's. Operations are judged by their names, and those
        that are none of TensorFlow's are taken to keep nothing.
        """
        return any(op not in _BESIDE and _KEEPS.search(op) for op in self._needed(tensors))

    def _needed(self, tensors: Iterable[str]) -> Iterator[str]:
        """Yields the operations that tensors need, those inside of functions too; some of them more than once."""
        waiting = [node_name(name) for name in tensors]
        seen = set(waiting)
        called: list[str] = []
        while waiting:
            node = self._nodes.get(waiting.pop())
            if node is None:
                continue
            yield node.op
            called += functions_called(node, self._functions)
            for name in map(node_name, node.input):
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)
        entered = set()
        while called:
            name = called.pop()
            if name in entered:
                continue
            entered.add(name)
            for node in self._functions[name].node_def:
                yield node.op
                called += functions_called(node, self._functions)


def tensor_names(info: Any) -> list[str]:
    """Returns the graph's tensors of a TensorInfo: of a sparse one indices, values and shape, in this order."""
    if info.HasField("coo_sparse"):
        sparse = info.coo_sparse
        return [sparse.indices_tensor_name, sparse.values_tensor_name, sparse.dense_shape_tensor_name]
    if info.HasField("composite_tensor"):
        return [part.name for part in info.composite_tensor.components]
    return [info.name]
