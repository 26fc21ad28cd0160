"""Puts the pages of the site together in out/docs: the documents, and the pages that are generated."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from api import api_page
from config_reference import reference_page

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "out" / "docs"
# What lies outside of docs/, and the pages that it becomes.
_OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "data/README.md": "data.md",
    "configs/schema.json": "config-reference.md",
}
_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def pages() -> dict[str, str]:
    """Returns the content of each page, by its path within the site."""
    schema = json.loads((ROOT / "configs" / "schema.json").read_text("utf-8"))
    found = {"config-reference.md": reference_page(schema), "api.md": api_page()}
    documents = {f"docs/{file.name}": file.name for file in (ROOT / "docs").glob("*.md")}
    for source, page in {**_OUTSIDE, **documents}.items():
        if source.endswith(".md"):
            found[page] = moved((ROOT / source).read_text("utf-8"), (ROOT / source).parent)
    return found


def moved(markdown: str, folder: Path) -> str:
    """Makes links of a document that is in a folder lead to pages of the site."""

    def new(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if not target.is_relative_to(ROOT):
            return link[0]
        inside = target.relative_to(ROOT).as_posix()
        return f"{link[1]}{_OUTSIDE.get(inside, inside.removeprefix('docs/'))}{link[3] or ''}{link[4]}"

    return _LINK.sub(new, markdown)


def main() -> None:
    """Writes the pages and their pictures."""
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    for page, content in pages().items():
        (PLACE / page).write_text(content, "utf-8")
    shutil.copytree(ROOT / "docs" / "images", PLACE / "images")


if __name__ == "__main__":
    main()
