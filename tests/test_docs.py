"""The documents name what is there: modules, folders, and each other."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import scaling

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BASES = (ROOT, *(ROOT / package for package in ("pipelines", "inference", "model", "tests")))
_CODE = re.compile(r"`([^`\s]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def named(document: Path) -> Iterator[tuple[int, str]]:
    """The paths of modules and folders of the packages that a document names: line, path."""
    for line, text in enumerate(document.read_text("utf-8").splitlines(), 1):
        for name in _CODE.findall(text):
            within = name.split("/")[0] in ("pipelines", "inference", "model", "tests")
            if "<" not in name and "*" not in name and "/" in name and (within or name.endswith(".py")):
                yield line, name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_is_there(document: Path) -> None:
    missing = [f"line {line}: {name}" for line, name in named(document) if not any((b / name).exists() for b in BASES)]
    assert missing == []


def anchors(document: Path) -> set[str]:
    """The fragments by which a document's headings are linked to."""
    text = re.sub(r"^ *```.*?^ *```", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = [link for link in _LINK.findall(document.read_text("utf-8")) if "://" not in link]
    missing = []
    for link in links:
        path, _, fragment = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (fragment and fragment not in anchors(target)):
            missing.append(link)
    assert missing == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def test_what_contributing_names_is_in_the_code() -> None:
    """Classes, constants and keys: so that the lists of files stay true when names change."""
    code = "\n".join(
        path.read_text("utf-8")
        for package in ("model", "inference", "pipelines")
        for path in sorted((ROOT / package).rglob("*.py"))
    )
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## How to add ...")[2]
    names = {name for name in _CODE.findall(text) if re.fullmatch(r"_?[A-Z]\w+", name)}
    assert len(names) > 20
    assert {
        name for name in names if not re.search(rf"^(class {name}\b|{name}\b.*=|    {name},?$)", code, re.MULTILINE)
    } <= {"UnboundedSource", "ModelHandler"}


def test_the_tables_of_scaling_are_those_that_are_computed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling"])
    scaling.main()
    document = " ".join((ROOT / "docs" / "scaling.md").read_text("utf-8").split())
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) > 8
    assert [line for line in lines if line not in document] == []


@pytest.mark.parametrize(
    "contestant",
    [
        "this project", "this project on 10,000,000 rows", "pyarrow + C API, no engine (limit)",
        "Spark predict_batch_udf", "Ray Data map_batches", "stock Beam, default runner",
    ],
)  # fmt: skip
def test_the_rates_of_the_readme_are_those_of_the_benchmarks(contestant: str) -> None:
    results = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    found = re.search(rf"^\| {re.escape(contestant)} \| [\d,]+ \| [\d.]+ \| ([\d,]+) \|", results, re.MULTILINE)
    assert found is not None
    assert f"{round(int(found[1].replace(',', '')), -3):,}" in (ROOT / "README.md").read_text("utf-8")
