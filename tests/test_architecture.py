"""Import only downwards: model <- inference <- pipelines; and no more than that."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "model": {"apache_beam", "inference", "pipelines", "tests"},
    "inference": {"pipelines", "tests"},
    "pipelines": {"tests"},
}
MODULES = sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, wherever in the file: line, dotted name."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{name.name}") for name in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    forbidden = FORBIDDEN[path.relative_to(ROOT).parts[0]]
    wrong = [f"line {line}: {name}" for line, name in imported(path) if name.split(".")[0] in forbidden]
    assert wrong == []


LAYERS = (
    {"clock", "storage", "encodings", "process_state"},
    {"config"},
    {"telemetry"},
    {"rows"},
    {"formats"},
    {"dead_letters"},
    {"plan"},
    {"connectors"},
    {"planning"},
    {"beam_fixes"},
    {"flows", "io"},
    {"engine"},
    {"cli"},
    {"batch", "stream", "replay", "check", "init", "simulate"},
    {"__init__", "__main__"},
)
"""The parts of `pipelines`, each of which imports from those before it only."""

LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names}


@pytest.mark.parametrize("path", [path for path in MODULES if path.relative_to(ROOT).parts[0] == "pipelines"], ids=str)
def test_the_parts_of_pipelines_import_downwards(path: Path) -> None:
    own = path.relative_to(ROOT).with_suffix("").parts[1]
    for line, name in imported(path):
        package, *parts = name.split(".")
        if package == "pipelines" and parts and parts[0] in LAYER and parts[0] != own:
            assert LAYER[parts[0]] < LAYER[own], f"line {line}: {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_one_job(path: Path) -> None:
    """A module over 350 lines is two modules; one is left that is longer."""
    assert len(path.read_text("utf-8").splitlines()) <= 410


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_needs_pandas(path: Path) -> None:
    """Commands hide it, and what pyarrow calls to_pandas_... needs it, even where no table is made."""
    assert "pandas" not in {name.split(".")[0] for _, name in imported(path)}
    assert "to_pandas" not in path.read_text("utf-8")


def test_neither_beam_nor_tensorflow_for_what_answers_at_once() -> None:
    light = [
        "model.signature",
        "pipelines.config.load",
        "pipelines.planning.planner",
        "pipelines.check",
        "pipelines.init",
        "pipelines.batch",
    ]
    code = f"import sys, {', '.join(light)}; sys.exit(bool({{'tensorflow', 'apache_beam'}} & set(sys.modules)))"
    assert processes.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


TESTS = sorted((ROOT / "tests").rglob("*.py"))
_TEST_MODULE = re.compile(r"\btests\.(?:\w+\.)*(?:test_\w+|conftest)\b")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_module_is_imported(path: Path) -> None:
    """Not in a program within a string either: what tests share is in tests/support."""
    texts = [
        (node.lineno, node.value)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [(line, name) for line, name in [*imported(path), *texts] if _TEST_MODULE.search(name)] == []


STARTERS = {"Popen", "run", "call", "check_call", "check_output"}


@pytest.mark.parametrize(
    "path", [path for path in TESTS if path.relative_to(ROOT).parts[1] != "benchmarks"], ids=lambda path: str(path)
)
def test_processes_of_tests_end_with_them(path: Path) -> None:
    """One module starts them all."""
    if path == ROOT / "tests" / "support" / "processes.py":
        return
    wrong = [
        f"line {node.lineno}: subprocess.{node.func.attr}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and getattr(node.func.value, "id", "") == "subprocess"
        and node.func.attr in STARTERS
    ]
    assert wrong == [], "use tests.support.processes"
