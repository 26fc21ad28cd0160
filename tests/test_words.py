"""Docstrings begin with a verb and stand alone; a name stands for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("model", "inference", "pipelines")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TREES = {path: ast.parse(path.read_text("utf-8")) for path in MODULES}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
VERBS = {"Raised"}
"""First words beside the third person of a verb."""
NOUNS = {
    "Arguments", "Attributes", "Batches", "Bytes", "Columns", "Errors", "Fields", "Files", "Headers", "Inputs", "Its",
    "Items", "Keys", "Lines", "Messages", "Microseconds", "Milliseconds", "Models", "Numbers", "Outputs", "Paths",
    "Pieces", "Places", "Positions", "Problems", "Requests", "Rows", "Seconds", "Settings", "Shards", "Sizes",
    "Tensors", "This", "Types", "Values", "Words",
}  # fmt: skip
"""Words that end as a verb in the third person does."""


def definitions(body: list[ast.stmt], within: str = "") -> Iterator[tuple[str, Definition, bool]]:
    """Yields the public classes, functions and methods: qualified name, node, whether it is a method of a subclass."""
    for node in body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        yield within + node.name, node, False
        if isinstance(node, ast.ClassDef):
            for name, inner, _ in definitions(node.body, f"{within}{node.name}."):
                yield name, inner, bool(node.bases)


def is_verb(word: str) -> bool:
    word = word.strip("`,.:;")
    return word in VERBS or (word[:1].isupper() and word.endswith("s") and word not in NOUNS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_with_a_verb(path: Path) -> None:
    wrong = []
    if (said := ast.get_docstring(TREES[path])) and not is_verb(said.split()[0]):
        wrong.append(f"the module: {' '.join(said.split()[:6])} ...")
    for name, node, may_override in definitions(TREES[path].body):
        found = ast.get_docstring(node)
        if found is None:
            # What overrides a documented method needs no docstring of its own; mypy and the base class tell.
            if not may_override:
                wrong.append(f"line {node.lineno}: {name} has no docstring")
        elif not is_verb(found.split()[0]):
            wrong.append(f"line {node.lineno}: {name}: {' '.join(found.split()[:6])} ...")
    assert wrong == []


def test_no_two_classes_share_a_name() -> None:
    places = defaultdict(list)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
