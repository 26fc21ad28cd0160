"""Finds references of built pages that lead nowhere: files and fragments that are not there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """Collects what a page refers to, and by which fragments it can be referred to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.references: list[str] = []
        self.fragments: set[str] = set()
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if value and name in ("href", "src"):
                self.references.append(value)
            elif value and name in ("id", "name"):
                self.fragments.add(value)


def broken(site: Path) -> list[str]:
    """Returns the references of a site's pages that lead nowhere, as `page: reference`."""
    pages = {file.resolve(): _Page(file) for file in sorted(site.rglob("*.html"))}
    found = []
    for file, page in pages.items():
        if file.name == "404.html":
            # Its references are those of wherever it is shown.
            continue
        for reference in page.references:
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if target.is_dir():
                target /= "index.html"
            fragment = unquote(parts.fragment)
            missing = not target.exists() or (
                fragment and target in pages and fragment not in pages[target].fragments and fragment != "__top"
            )
            if missing:
                found.append(f"{file.relative_to(site.resolve())}: {reference}")
    return found


def main() -> int:
    """Prints the broken references of the site that the command line names."""
    site = Path(sys.argv[1])
    found = broken(site)
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    print(f"{len(list(site.rglob('*.html')))} pages, {len(found)} broken references")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
