"""The site is put together from what is there: every page is in the navigation, every link leads to a page."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.support.commands import ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of docs/tools."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "tools"))
    return importlib.import_module


def in_navigation(entries: Any) -> list[str]:
    if isinstance(entries, str):
        return [entries]
    parts = entries.values() if isinstance(entries, dict) else entries
    return [page for part in parts for page in in_navigation(part)]


def test_every_page_is_in_the_navigation(tool: Any) -> None:
    navigation = in_navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    # Where the data are from is linked to by the start page.
    assert sorted([*navigation, "data.md"]) == sorted(tool("site_pages").pages())


def test_links_between_pages_lead_to_pages(tool: Any) -> None:
    pages = tool("site_pages").pages()
    there = {*pages, *(f"images/{file.name}" for file in (ROOT / "docs" / "images").iterdir())}
    links = {link.partition("#")[0] for page in pages.values() for link in LINK.findall(page) if "://" not in link}
    assert links - there <= {""}


def test_the_reference_has_every_key(tool: Any) -> None:
    schema = json.loads((ROOT / "configs" / "schema.json").read_text("utf-8"))
    page = tool("config_reference").reference_page(schema)
    for definition in schema["$defs"].values():
        table = tool("config_reference").table(definition, schema["$defs"])
        assert table in page
        assert re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) == list(definition["properties"])


def test_the_reference_reads_well(tool: Any) -> None:
    definition = {
        "required": ["path"],
        "properties": {
            "path": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "rate": {"type": "number", "minimum": 0, "default": 500, "description": "A*b, a|b and `c_d`."},
        },
    }
    assert tool("config_reference").table(definition, {}).splitlines()[2:] == [
        "| `path` | string or list of string |  |  |",
        "| `rate` | number (≥ 0) | `500` | A\\*b, a\\|b and `c_d`. |",
    ]


def test_what_the_api_names_is_there(tool: Any) -> None:
    for name in re.findall(r"^::: (\S+)$", tool("api").api_page(), re.MULTILINE):
        found: Any = None
        for part in (parts := name.split(".")):
            try:
                found = importlib.import_module(".".join(parts[: parts.index(part) + 1]))
            except ModuleNotFoundError:
                found = getattr(found, part)
        assert isinstance(found, ModuleType) or found.__doc__, name


def test_broken_references_are_found(tool: Any, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.html").write_text('<h1 id="x">b</h1>', "utf-8")
    good = '<a href="b/#x"></a><a href="#here" id="here"></a><a href="https://example.com/none"></a>'
    (tmp_path / "index.html").write_text(good, "utf-8")
    assert tool("broken_links").broken(tmp_path) == []
    (tmp_path / "index.html").write_text(good + '<img src="c.svg"><a href="b/#y"></a>', "utf-8")
    assert tool("broken_links").broken(tmp_path) == ["index.html: c.svg", "index.html: b/#y"]
