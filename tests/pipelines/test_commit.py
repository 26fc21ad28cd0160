"""What a run leaves behind is whole, of one run only, and nobody else's files are touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ledger
from tests.conftest import ROOT, Command
from tests.ledger import KEY, assert_balanced, births, books_of, shards, write_config, write_rows


def run(command: Command, folder: Path, rows: list[ledger.Row], format: str = "csv", **changes: object) -> None:
    file = write_rows(folder / "in.csv", "csv", rows)
    result = command("batch", "--config", write_config(folder, "csv", str(file), format, **changes))
    assert result.code == 0, result


def files_in(folder: Path) -> set[str]:
    """Everything below a folder, hidden or not."""
    return {str(Path(root, name).relative_to(folder)) for root, _, names in os.walk(folder) for name in names}


@pytest.mark.parametrize("counts", [(5, 2), (2, 5), (3, 3)], ids=["fewer", "more", "as many"])
def test_a_rerun_replaces_all_shards(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: tuple[int, int]
) -> None:
    first, second = births(200, 1, "old"), births(150, 2, "new")
    run(command, tmp_path, first)
    (shard,) = shards(tmp_path / "out" / "p")
    for number in range(counts[0]):  # as a run with more workers would have left them
        (tmp_path / "out" / f"p-{number:05d}-of-{counts[0]:05d}.csv").write_bytes(shard.read_bytes())
    monkeypatch.setattr("pipelines.sources.file.split_bytes_for", lambda total: total // (4 * counts[1]))
    monkeypatch.setattr("os.cpu_count", lambda: counts[1])
    run(command, tmp_path, second)
    assert_balanced(books_of(tmp_path), second, {})
    found = shards(tmp_path / "out" / "p")
    assert {path.name[-len("00000.csv") :] for path in found} == {f"{len(found):05d}.csv"}


def test_a_rerun_in_another_format_replaces_too(command: Command, tmp_path: Path) -> None:
    rows = births(100, 3)
    for format in ("csv", "parquet", "json", "avro"):
        run(command, tmp_path, rows, format)
        (shard,) = shards(tmp_path / "out" / "p")
        assert shard.suffix == f".{ledger.EXTENSIONS[format]}"
        assert_balanced(books_of(tmp_path), rows, {})


def test_dead_letters_of_the_run_before_go(command: Command, tmp_path: Path) -> None:
    rows = births(50, 4)
    bad = [{**row, "mother_age": None} for row in rows[:5]]
    run(command, tmp_path, bad + rows[5:])
    assert len(ledger.letters(tmp_path / "out" / "dead")) == 5
    run(command, tmp_path, rows)
    assert shards(tmp_path / "out" / "dead") == []
    assert_balanced(books_of(tmp_path), rows, {})


def test_only_the_shards_are_left(command: Command, tmp_path: Path) -> None:
    rows = births(50, 5)
    run(command, tmp_path, [{**rows[0], "is_male": None}, *rows[1:]])
    assert files_in(tmp_path / "out") == {"p-00000-of-00001.csv", "dead-00000-of-00001.jsonl"}
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == []


def test_foreign_files_are_not_touched(command: Command, tmp_path: Path) -> None:
    foreign = {
        "p",
        "p.csv",
        "p-notes.txt",
        "p2-00000-of-00001.csv",
        "p-other-00000-of-00001.csv",
        "p-00000-of-00001.csv.bak",
        "p-0-of-1.csv",
        "p-replay-notes-00000-of-00001.csv",
        "dead-00000-of-00001.jsonl.gz",
        "deadline-00000-of-00001.jsonl",
        "p-dead_letters-00000-of-00001.jsonl",
        "old-p-00000-of-00001.csv",
        ".p-00000-of-00001.csv",
    }
    for name in foreign:
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    rows = births(20, 6)
    for _ in range(2):
        run(command, tmp_path, rows)
    assert {name for name in foreign if (tmp_path / "out" / name).read_text() == "mine"} == foreign
    assert files_in(tmp_path / "out") == foreign | {"p-00000-of-00001.csv"}


@pytest.mark.parametrize("prefix", ["_p", ".p", "p[1]", "p*", "a b/ü", "folder/", "./deep/er/p", "p-00000-of-00002"])
def test_prefixes_with_a_life_of_their_own(
    command: Command, tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run replaces the first under any name that a person may choose."""
    monkeypatch.chdir(tmp_path)
    for number, count in enumerate((50, 30)):
        rows = births(count, 7, f"n{number}-")
        file = write_rows(tmp_path / "in.csv", "csv", rows)
        config = write_config(tmp_path, "csv", str(file), "csv" if number else "json", output={"path": prefix})
        result = command("batch", "--config", config)
        assert result.code == 0, result
        assert len(shards(prefix)) == 1
        assert_balanced(ledger.read_books(prefix, tmp_path / "out" / "dead"), rows, {})


def test_two_runs_with_neighbouring_prefixes(command: Command, tmp_path: Path) -> None:
    first, second = births(20, 8, "a"), births(20, 9, "b")
    for rows, prefix in ((first, "p"), (second, "p-1"), (first, "p")):
        run(command, tmp_path, rows, output={"path": str(tmp_path / "out" / prefix)})
    assert_balanced(ledger.read_books(tmp_path / "out" / "p", tmp_path / "no"), first, {})
    assert_balanced(ledger.read_books(tmp_path / "out" / "p-1", tmp_path / "no"), second, {})


def test_a_folder_with_output_and_dead_letters(command: Command, tmp_path: Path) -> None:
    """`out/` as output, dead letters by default at `out/dead_letters`."""
    rows = births(20, 10)
    bad = {**rows[0], "plurality": None}
    for _ in range(2):
        changes = {"output": {"path": f"{tmp_path}/o/"}, "dead_letters": {"path": None}}
        run(command, tmp_path, [bad, *rows[1:]], **changes)
        books = ledger.read_books(f"{tmp_path}/o/", f"{tmp_path}/o/dead_letters")
        assert_balanced(books, rows[1:], {bad[KEY]: None})
    assert files_in(tmp_path / "o") == {"00000-of-00001.csv", "dead_letters-00000-of-00001.jsonl"}


def test_the_header_is_right_in_every_shard(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.sources.file.split_bytes_for", lambda total: 500)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    rows = births(300, 11)
    run(command, tmp_path, rows, output={"columns": ["note", "predictions", KEY]})
    found = shards(tmp_path / "out" / "p")
    assert len(found) > 1
    for shard in found:
        assert shard.read_bytes().split(b"\n")[0] == b"note,predictions," + KEY.encode()
        assert shard.read_bytes().count(b"note,predictions") == 1
    assert_balanced(books_of(tmp_path), rows, {})


@pytest.mark.parametrize(
    ("content", "format"),
    [(content, "csv") for content in (b"", ledger.HEADER + b"\n", ledger.HEADER, b"\n\n")]
    + [(b"", format) for format in ("parquet", "json", "avro", "tfrecord")],
)
def test_an_empty_source_leaves_one_shard(command: Command, tmp_path: Path, content: bytes, format: str) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    config = write_config(tmp_path, "csv", str(tmp_path / "in.csv"), format)
    result = command("batch", "--config", config, "--json")
    assert result.code == 0, result
    assert result.summary["rows_read"] == 0
    (shard,) = shards(tmp_path / "out" / "p")
    assert ledger.read_shard(shard) == []
    if format == "csv":
        assert shard.read_text() == f"{KEY},predictions\n"


@pytest.mark.parametrize("format", ["json", "avro", "parquet", "orc", "tfrecord"])
def test_an_empty_file_of_any_format(command: Command, tmp_path: Path, format: str) -> None:
    (tmp_path / "in").write_bytes(b"")
    result = command("batch", "--config", write_config(tmp_path, format, str(tmp_path / "in")), "--json")
    assert result.code == 0, result
    assert [path.read_text() for path in shards(tmp_path / "out" / "p")] == [f"{KEY},predictions\n"]


def test_all_rows_dead_lettered_still_leaves_a_shard(command: Command, tmp_path: Path) -> None:
    rows = [{**row, "is_male": None} for row in births(10, 12)]
    run(command, tmp_path, rows)
    assert [path.read_text() for path in shards(tmp_path / "out" / "p")] == [f"{KEY},predictions\n"]
    assert_balanced(books_of(tmp_path), [], {row[KEY]: None for row in rows})


_PUBLISH = """
import os, signal, sys
from pipelines import files, shards
left = int(sys.argv[1])

def counted(action):
    def act(*arguments):
        global left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return action(*arguments)
    return act

files.os.remove, files.os.replace = counted(os.remove), counted(os.replace)
shards.publish(sys.argv[2], sys.argv[3:], "csv")
"""


def test_publishing_that_is_killed_at_any_step_can_be_repeated(tmp_path: Path) -> None:
    """Shards are whole, never of two runs at once, and a second attempt completes what the first began."""
    for steps in range(8):
        folder = tmp_path / str(steps)
        (folder / "tmp").mkdir(parents=True)
        old = [folder / f"p-{n:05d}-of-00003.csv" for n in range(3)]
        for path in old:
            path.write_text("old")
        temporary = [folder / "tmp" / f"{n}.csv" for n in range(4)]
        for path in temporary:
            path.write_text("new")
        arguments = [str(folder / "p"), *map(str, temporary)]
        done = subprocess.run([sys.executable, "-c", _PUBLISH, str(steps), *arguments], cwd=ROOT, check=False)
        assert done.returncode == (0 if steps == 7 else -9)
        contents = {path.read_text() for path in folder.glob("p-*")}
        assert len(contents) <= 1
        assert contents <= {"old", "new"}
        subprocess.run([sys.executable, "-c", _PUBLISH, "-1", *arguments], cwd=ROOT, check=True)
        assert [path.name for path in sorted(folder.glob("p-*"))] == [f"p-{n:05d}-of-00004.csv" for n in range(4)]
        assert {path.read_text() for path in folder.glob("p-*")} == {"new"}
