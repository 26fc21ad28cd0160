"""docs/architecture.md lists the files that a row enters; tracing small runs shows whether that is still so."""

from __future__ import annotations

import re

import pytest

from tests import row_paths
from tests.support.commands import ROOT

DOCUMENT = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def documented(way: str) -> set[str]:
    table = DOCUMENT.partition(f"<!-- row path: {way} -->")[2].partition("<!-- end of row path")[0]
    lines = re.findall(r"^\| `([\w/]+/)` \| (.+) \|$", table, re.MULTILINE)
    return {folder + name for folder, names in lines for name in re.findall(r"`(\w+\.py)`", names)}


@pytest.mark.parametrize("way", ["csv", "failing", pytest.param("kafka", marks=pytest.mark.long)])
def test_a_row_enters_the_files_that_are_documented(way: str) -> None:
    found = set(row_paths.traced(way))
    stale = "not up to date: run python -m tests.row_paths --markdown docs/architecture.md"
    assert (found - documented(way), documented(way) - found) == (set(), set()), stale


def test_what_is_listed_of_kafka_is_there() -> None:
    """Checks what can be checked without a broker."""
    assert len(documented("kafka")) > 20
    assert [name for name in documented("kafka") if not (ROOT / name).exists()] == []
