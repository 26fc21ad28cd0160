"""The Dockerfile copies what is there and what a worker needs; `python -m tests.servers.image` builds and runs it."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INSTRUCTIONS = {"ARG", "FROM", "RUN", "COPY", "WORKDIR", "ENV", "ENTRYPOINT"}


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, each with its arguments on one line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), value) for name, value in found]


@pytest.fixture(scope="module")
def parsed() -> list[tuple[str, str]]:
    return instructions((ROOT / "Dockerfile").read_text())


def arguments(parsed: list[tuple[str, str]]) -> dict[str, str]:
    return dict(value.split("=", 1) for name, value in parsed if name == "ARG")


def sources(parsed: list[tuple[str, str]]) -> list[str]:
    """What is copied from the checkout."""
    found = []
    for name, value in parsed:
        words = shlex.split(value)
        if name == "COPY" and not words[0].startswith("--from="):
            found += words[:-1]
    return found


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path from the build: the last line that matches says it."""
    result = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        parts = Path(path).parts
        begins = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        if any(fnmatch.fnmatch(begin, pattern) or fnmatch.fnmatch(f"/{begin}", f"/{pattern}") for begin in begins) or (
            pattern.startswith("**/") and any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
        ):
            result = not line.startswith("!")
    return result


def test_instructions_are_known(parsed: list[tuple[str, str]]) -> None:
    assert {name for name, _ in parsed} <= INSTRUCTIONS
    stages = [value.split(" AS ")[-1] for name, value in parsed if name == "FROM" and " AS " in value]
    named = [word[7:] for name, value in parsed if name == "COPY" for word in value.split() if word[:7] == "--from="]
    assert set(named) <= set(stages)
    assert json.loads(parsed[-1][1]) == ["/opt/apache/beam/boot"]


def test_what_is_copied_is_there_and_reaches_the_build(parsed: list[tuple[str, str]]) -> None:
    copied = sources(parsed)
    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert [path for path in copied if ignored(path)] == []


@pytest.mark.parametrize(
    "path", [".env", ".git/config", ".venv/bin/python", "model/.env", "out/p.csv", "tests/conftest.py", "key.json"]
)
def test_what_does_not_reach_the_build(path: str) -> None:
    assert ignored(path)


def test_the_wheel_is_made_of_all_that_packing_reads(parsed: list[tuple[str, str]]) -> None:
    """Each file that MANIFEST.in names is in what the image copies."""
    copied = set(sources(parsed))
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        kind, *words = line.split()
        named = words if kind == "include" else words[:1] if kind == "recursive-include" else []
        assert [word for word in named if word not in copied and word.split("/")[0] not in copied] == []


def test_versions_are_those_of_the_lock_file(parsed: list[tuple[str, str]]) -> None:
    given = arguments(parsed)
    [locked] = re.findall(
        r"^apache-beam==(\S+) ; python_full_version >= '3.11'", (ROOT / "requirements.lock").read_text(), re.M
    )
    assert given == {"BEAM": locked, "PYTHON": "3.11"}


def test_nothing_secret_is_asked_for(parsed: list[tuple[str, str]]) -> None:
    text = " ".join(f"{name} {value}" for name, value in parsed).lower()
    assert [word for word in ("password", "token", "secret", "credential", "index-url", "ssh") if word in text] == []


def test_it_installs_what_the_wheel_needs_in_locked_versions(parsed: list[tuple[str, str]]) -> None:
    """uv holds what it downloads against the hashes of a constraint, and the lock file has one for each package."""
    makefile = (ROOT / "Makefile").read_text()
    runs = " ".join(value for name, value in parsed if name == "RUN")
    [chosen] = re.findall(r"awk '(.+?)' requirements.lock", makefile)
    assert f"awk '{chosen}' requirements.lock" in runs
    assert "--require-hashes -r requirements.lock" in makefile
    assert "--require-hashes -r /dev/stdin" in runs
    assert "uv pip install --system --no-cache --constraint requirements.lock" in runs
    packages = re.findall(r"^\S.*==.*\n(    --hash)?", (ROOT / "requirements.lock").read_text(), re.M)
    assert packages
    assert all(packages)
