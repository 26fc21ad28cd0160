"""Finds the code blocks of the documents, and what is said of them in a comment before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import ROOT

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
LANGUAGES = {"bash", "console", "json", "python", "proto", "text"}
"""bash: commands. console: commands behind `$ `, and what they print. text: nothing to run."""

_FENCE = re.compile(r"^( *)```(.*)$")
_MARK = re.compile(r"^ *<!-- (not run|run with|file): (.+) -->$")


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
      document: the file.
      line: of the opening fence.
      language: of the block; empty if it has none.
      text: the content.
      mark: "not run", "run with", "file", or empty.
      said: what follows in the mark: a reason, further arguments, or a file's name.
    """

    document: Path
    line: int
    language: str
    text: str
    mark: str = ""
    said: str = ""

    @property
    def place(self) -> str:
        """Returns the document and the line, as an editor takes it."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks_of(document: Path) -> Iterator[Block]:
    """Yields the blocks of a document; raises ValueError for a fence that is not closed."""
    lines = document.read_text("utf-8").splitlines()
    number, mark = 0, ("", "")
    while number < len(lines):
        line = lines[number]
        number += 1
        if found := _MARK.match(line):
            mark = (found[1], found[2])
            continue
        if fence := _FENCE.match(line):
            opened, indent, content = number, fence[1], []
            while number < len(lines) and lines[number] != f"{indent}```":
                content.append(lines[number].removeprefix(indent))
                number += 1
            if number == len(lines):
                raise ValueError(f"{document}:{opened}: the block has no end")
            number += 1
            yield Block(document, opened, fence[2].strip(), "".join(f"{line}\n" for line in content), *mark)
        if line.strip():
            mark = ("", "")


@dataclass(frozen=True)
class Command:
    """A command of a block.

    Attributes:
      line: the command, its continuation lines joined.
      output: the lines that it prints, as the document has them; None if the document shows none.
    """

    line: str
    output: list[str] | None


def commands_of(block: Block) -> list[Command]:
    """Returns the commands of a block of bash or console."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "bash":
        return [Command(line, None) for line in lines if line.strip() and not line.startswith("#")]
    found: list[Command] = []
    for line in lines:
        if line.startswith("$ "):
            found.append(Command(line[2:], []))
        elif not found:
            raise ValueError(f"{block.place}: console blocks begin with `$ `")
        else:
            output = found[-1].output
            assert output is not None
            output.append(line)
    return found
