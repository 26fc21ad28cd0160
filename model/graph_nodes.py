"""Reads the nodes of a graph: NodeDef messages."""

from __future__ import annotations

from collections.abc import Container
from typing import Any


def node_name(reference: str) -> str:
    """Returns the node that an input of another node, or the name of a tensor, refers to."""
    return reference.lstrip("^").partition(":")[0]


def functions_called(node: Any, known: Container[str]) -> list[str]:
    """Lists the functions that a node names, as its operation or in any attribute.

    Args:
      node: a NodeDef.
      known: the names of the graph's functions.
    """
    named = [node.op]
    for pair in node.attr:
        if pair.value.HasField("func"):
            named.append(pair.value.func.name)
        elif pair.value.HasField("list"):
            named += [function.name for function in pair.value.list.func]
    return [name for name in named if name in known]
