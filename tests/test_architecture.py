"""What .importlinter, which `make check` runs, does not see of the imports; sizes of modules; what answers at once."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("model", "inference", "pipelines")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def contract(name: str) -> list[str]:
    """The layers of a contract of .importlinter, the lowest first; parts of one layer stand on one line."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    return contracts[f"importlinter:contract:{name}"]["layers"].split("\n")[:0:-1]


PACKAGE_LEVEL = {name: level for level, name in enumerate(contract("packages"))}
PART_LEVEL = {name.strip(): level for level, line in enumerate(contract("pipelines")) for name in line.split(":")}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, wherever in the file: line, dotted name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, str(node.module)
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def named(path: Path) -> Iterator[tuple[int, str]]:
    """Every dotted name of our packages in the strings of a file: modules that are imported by their names."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = re.fullmatch(r"(model|inference|pipelines)((\.\w+)+)", node.value)
            if name:
                yield node.lineno, node.value


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_imported_by_its_name_is_below(path: Path) -> None:
    """`make check` looks at import statements alone (.importlinter)."""
    package, *rest = path.relative_to(ROOT).with_suffix("").parts
    for line, name in named(path):
        other, part = name.split(".")[:2]
        assert PACKAGE_LEVEL[other] <= PACKAGE_LEVEL[package], f"line {line}: {name}"
        if package == other == "pipelines" and part in PART_LEVEL and rest[0] not in (part, "__init__"):
            assert PART_LEVEL[part] < PART_LEVEL[rest[0]], f"line {line}: {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_one_job(path: Path) -> None:
    """A module over 350 lines is two modules."""
    assert len(path.read_text("utf-8").splitlines()) <= 350


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
