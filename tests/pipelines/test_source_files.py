"""Which files a source reads: each once, whatever names lead to it; what is left out is said."""

from __future__ import annotations

import glob
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from pipelines.connectors.files import source_files
from tests.support import ledger
from tests.support.commands import Command
from tests.support.ledger import FORMATS_IN, KEY, assert_balanced, births, books_of, write_config, write_rows


def paths(*patterns: str) -> list[str]:
    found = source_files.find(patterns)
    assert not found.problems
    return [file.path for file in found.files]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.csv", "x/b.csv", "x/y/c.csv", "x/.h/d.csv", ".e.csv", "_f.csv", "x/[1].csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"id\n{name}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    [
        "*.csv",
        "**",
        "**/*.csv",
        "x/**/c.csv",
        "**/y/*",
        "x/**",
        "*/**/*.csv",
        "**/*/*.csv",
        "**/**/b.csv",
        "*/*",
        "x/[[]*",
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_glob_matches_what_the_standard_library_matches(tree: Path, pattern: str, absolute: bool) -> None:
    wanted = f"{tree}/{pattern}" if absolute else pattern
    known = [
        p for p in glob.glob(wanted, recursive=True) if os.path.isfile(p) and not os.path.basename(p).startswith("_")
    ]
    assert paths(wanted) == sorted(set(known))


def test_a_hidden_file_is_read_if_it_is_named_in_full(tree: Path) -> None:
    assert paths("_f.csv", ".e.csv", "x/[1].csv") == ["_f.csv", ".e.csv", "x/[1].csv"]


@pytest.mark.parametrize("pattern", ["**/*.csv", "**"])
def test_links_that_lead_in_a_circle_are_not_entered(tree: Path, pattern: str) -> None:
    """Two of them would take 2**40 folders otherwise."""
    before = paths(pattern)
    for name in ("x/up", "x/y/up", "x/y/again"):
        (tree / name).symlink_to(tree)
    (tree / "x" / "itself").symlink_to(tree / "x" / "itself")
    assert paths(pattern) == before
    (note,) = source_files.find([pattern]).notes
    assert "links to folders that are read already are not entered" in note
    assert "x/up" in note


def test_a_link_to_a_folder_elsewhere_is_entered(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "g.csv").write_text("id\n1\n")
    (tree / "x" / "link").symlink_to(other)
    assert "x/link/g.csv" in paths("**/*.csv")


def test_a_file_of_several_names_is_read_once(tree: Path) -> None:
    (tree / "0-link.csv").symlink_to("a.csv")
    os.link("a.csv", "z-hard.csv")
    found = source_files.find(["*.csv", "./a.csv", f"/{tree}/a.csv", f"{tree}/x/../a.csv", "x"])
    assert [file.path for file in found.files] == ["a.csv", "x/[1].csv", "x/b.csv"]
    assert any(note.startswith("source.path: files that have several names are read once: ") for note in found.notes)


def test_files_of_the_same_content_are_all_read(tree: Path) -> None:
    for name in ("same-1.csv", "same-2.csv"):
        (tree / name).write_text("id\n1\n")
        os.utime(name, (1, 1))
    assert paths("same-*.csv") == ["same-1.csv", "same-2.csv"]


@pytest.mark.parametrize(("pattern", "skipped"), [("*", "x"), ("x", "x/y"), ("x/*", "x/y")])
def test_a_folder_among_files_is_said_to_be_left_out(tree: Path, pattern: str, skipped: str) -> None:
    (note,) = source_files.find([pattern]).notes
    assert f"{pattern} also matches folders, which are not read: {skipped};" in note


@pytest.mark.parametrize("pattern", ["**", "**/*", "*.csv", "*/*.csv", "x/y"])
def test_nothing_is_said_where_nothing_is_left_out(tree: Path, pattern: str) -> None:
    assert source_files.find([pattern]).notes == []


def test_what_matches_no_file_is_said_with_its_cause(tree: Path) -> None:
    (tree / "only" / "folders").mkdir(parents=True)
    (tree / "only" / "folders" / "a.csv").write_text("id\n")
    (tree / "empty").mkdir()

    def problem(pattern: str) -> str:
        (said,) = source_files.find([pattern]).problems
        return said

    assert "only folders do: only/folders; for the files in all folders below, write **" in problem("only")
    assert "only folders do: only/folders" in problem("only/*")
    assert "a folder without files" in problem("empty")
    assert "did you mean 'a.csv'?" in problem("b.csv")
    assert "there is no folder nowhere" in problem("nowhere/b.csv")


def test_a_folder_that_cannot_be_listed_is_a_problem(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may list every folder, so the refusal is made here."""
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if os.path.basename(str(path).rstrip("/")) == "y":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert "cannot be listed" in source_files.find(["**/*.csv"]).problems[0]


@pytest.mark.parametrize("format", FORMATS_IN)
def test_a_name_that_is_not_utf8_names_rows(command: Command, tmp_path: Path, format: str) -> None:
    """In keys, dead letters and the manifest; a replay finds all it needs."""
    rows = births(40, 4)
    bad = [{**row, "is_male": None} for row in rows[:2]]
    odd = os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9." + format.encode())
    write_rows(tmp_path / "in" / "plain", format, bad + rows[2:]).rename(odd)
    config = write_config(
        tmp_path,
        format,
        str(tmp_path / "in"),
        "json",
        source={"key": None},
        output={"columns": ["key", KEY, "predictions"]},
    )
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    assert (result.summary["rows_written"], result.summary["rows_dead_lettered"]) == (38, 2)
    books = books_of(tmp_path)
    name = f"{tmp_path}/in/caf\\xe9.{format}:"
    assert all(row["key"].startswith(name) for row in books.output)
    assert all(
        dead_letter["key"].startswith(name) and dead_letter["source"].startswith(name)
        for dead_letter in books.dead_letters
    )
    fixed = json.dumps({**ledger.DEFAULTS, "is_male": "True"})
    again = command("replay", "--config", config, "--json", f"--set=source.defaults={fixed}")
    assert again.summary["rows_written"] == 2, again
    assert len({row["key"] for row in books_of(tmp_path).output}) == 40


def test_a_file_that_cannot_be_read_and_whose_name_is_not_utf8_is_a_dead_letter(
    command: Command, tmp_path: Path
) -> None:
    rows = births(3, 4)
    write_rows(tmp_path / "in" / "a.parquet", "parquet", rows)
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.parquet")).write_bytes(b"PAR1, no more")
    config = write_config(tmp_path, "parquet", str(tmp_path / "in"))
    assert command("batch", "--config", config, "--json").code == 0
    (dead_letter,) = books_of(tmp_path).dead_letters
    assert "caf\\xe9.parquet" in dead_letter["message"]
    assert dead_letter["payload"] == b"PAR1, no more"


def test_a_path_that_is_not_utf8_in_the_config_is_said(command: Command, tmp_path: Path) -> None:
    config = write_config(tmp_path, "csv", "a.csv")
    result = command("check", "--config", config, "--set=source.path=caf\udce9.csv")
    assert result.code == 2
    assert "source.path: a character of it is not UTF-8; in the path of a source, write ? in its place" in result.err


def test_rows_of_links_and_repeated_paths_are_read_once(command: Command, tmp_path: Path) -> None:
    rows = births(60, 7)
    random.Random(1).shuffle(rows)
    write_rows(tmp_path / "in" / "a.csv", "csv", rows[:30])
    write_rows(tmp_path / "in" / "x" / "b.csv", "csv", rows[30:])
    (tmp_path / "in" / "x" / "loop").symlink_to(tmp_path / "in")
    listed = [f"{tmp_path}/in/**/*.csv", f"/{tmp_path}/in/a.csv", f"{tmp_path}/in/x/../a.csv"]
    config = write_config(tmp_path, "csv", listed)
    result = command("batch", "--config", config, "--json")
    assert result.code == 0
    assert "read once" in result.err
    assert "not entered" in result.err
    assert_balanced(books_of(tmp_path), rows, {})
