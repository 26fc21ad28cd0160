"""What a run leaves behind is whole, of one run only, and nobody else's files are touched."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.support import ledger
from tests.support.commands import Command
from tests.support.ledger import KEY, assert_balanced, births, books_of, shards, write_config, write_rows


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
    for rows, count in zip((first, second), counts, strict=True):
        monkeypatch.setattr(
            "pipelines.connectors.files.source.split_bytes_for", lambda total, count=count: max(1, total // (4 * count))
        )
        monkeypatch.setattr("os.cpu_count", lambda count=count: count)
        run(command, tmp_path, rows)
        assert_balanced(books_of(tmp_path), rows, {})
        found = shards(tmp_path / "out" / "p")
        assert {path.name[-len("00000.csv") :] for path in found} == {f"{len(found):05d}.csv"}
        assert ledger.recounted(tmp_path / "out" / "p") == len(rows)


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
    assert len(ledger.dead_letters(tmp_path / "out" / "dead")) == 5
    run(command, tmp_path, rows)
    assert shards(tmp_path / "out" / "dead") == []
    assert_balanced(books_of(tmp_path), rows, {})


def test_only_the_shards_are_left(command: Command, tmp_path: Path) -> None:
    rows = births(50, 5)
    run(command, tmp_path, [{**rows[0], "is_male": None}, *rows[1:]])
    manifests = {".p.manifest.json", ".dead.manifest.json"}
    assert files_in(tmp_path / "out") == {"p-00000-of-00001.csv", "dead-00000-of-00001.jsonl"} | manifests
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
        "p-00000-of-00009.pdf",
        "p-00000-of-00009.csv.gz",
        "p-00000-of-00009.parquet",
        "dead-00000-of-00009.csv",
        ".p.manifest.json.mine",
        ".p-01234567.tmp/notes.txt",
        ".p-01234567.tmp.d/00000000000000000000000000000000.csv",
        ".q-01234567.tmp/00000000000000000000000000000000.csv",
    }
    for name in foreign:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    rows = births(20, 6)
    for _ in range(2):
        run(command, tmp_path, rows)
    assert {name for name in foreign if (tmp_path / "out" / name).read_text() == "mine"} == foreign
    assert files_in(tmp_path / "out") == foreign | {"p-00000-of-00001.csv", ".p.manifest.json"}


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("p-00000-of-00001.csv", "output.path"),
        ("p-00007-of-00009.csv", "output.path"),
        ("dead-00000-of-00001.jsonl", "dead_letters.path"),
    ],
)
@pytest.mark.parametrize("kind", ["file", "folder", "link", "changed"])
def test_what_the_project_did_not_write_is_not_replaced(
    command: Command, tmp_path: Path, name: str, where: str, kind: str
) -> None:
    """Names that shards would get, of unknown origin: the run is refused before it begins."""
    path = tmp_path / "out" / name
    path.parent.mkdir()
    (tmp_path / "mine").write_text("mine")
    if kind == "changed":
        prefix = path.parent / name.split("-")[0]
        ledger.plant(prefix, {name.removeprefix(prefix.name): "as the run left it"})
    path.mkdir() if kind == "folder" else path.symlink_to("../mine") if kind == "link" else path.write_text("mine")
    rows = births(20, 6)
    file = write_rows(tmp_path / "in.csv", "csv", [{**rows[0], "is_male": None}, *rows[1:]])
    config = write_config(tmp_path, "csv", str(file))
    before = files_in(tmp_path / "out")
    for module in ("check", "batch"):
        result = command(module, "--config", config)
        assert result.code == 2, result
        assert len(result.errors) == 1
        assert where in result.errors[0]
        assert name in result.errors[0]
    assert kind == "folder" or path.read_text() == "mine"
    assert files_in(tmp_path / "out") == before


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
    manifests = {".manifest.json", ".dead_letters.manifest.json"}
    assert files_in(tmp_path / "o") == {"00000-of-00001.csv", "dead_letters-00000-of-00001.jsonl"} | manifests


def test_only_their_owner_reads_dead_letters(command: Command, tmp_path: Path) -> None:
    """They hold original rows. `permissions` lets others read them."""
    rows = births(5, 4)
    old = os.umask(0o022)
    try:
        for permissions, expected in ((None, 0o600), ("0640", 0o640), ("666", 0o666)):
            dead_letters = {"permissions": permissions} if permissions else {}
            run(command, tmp_path, [{**rows[0], "is_male": None}, *rows[1:]], dead_letters=dead_letters)
            (path,) = shards(tmp_path / "out" / "dead")
            assert stat.S_IMODE(path.stat().st_mode) == expected
            (output,) = shards(tmp_path / "out" / "p")
            assert stat.S_IMODE(output.stat().st_mode) == 0o644
    finally:
        os.umask(old)


def same_place(folder: Path) -> list[tuple[str, str]]:
    """Pairs of paths that mean the same files."""
    (folder / "x" / "dd").mkdir(parents=True)
    (folder / "link").symlink_to("x")
    base = str(folder)
    return [
        (f"{base}/x/dd/p", f"{base}/x/dd/p"),
        (f"{base}/x/dd/p", f"{base}/x/./dd/p"),
        (f"{base}/x/dd/p", f"{base}/x//dd/p"),
        (f"{base}/x/dd/p", f"{base}/x/dd/../dd/p"),
        (f"{base}/x/dd/p", f"{base}/link/dd/p"),
        (f"{base}/link/dd/", f"{base}/x/dd/"),
        (f"{base}/new/p", f"{base}/new/./p"),
        ("x/dd/p", f"{base}/x/dd/p"),
    ]


@pytest.mark.parametrize("number", range(8))
def test_output_and_dead_letters_in_the_same_place(
    command: Command, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, dead_letters = same_place(tmp_path)[number]
    monkeypatch.chdir(tmp_path)
    file = write_rows(tmp_path / "in.csv", "csv", births(10, 3))
    config = write_config(tmp_path, "csv", str(file), output={"path": output}, dead_letters={"path": dead_letters})
    for module in ("check", "batch"):
        result = command(module, "--config", config)
        assert result.code == 2, result
        assert "same place" in result.errors[0]
    assert not (tmp_path / "new").exists()


def test_a_source_that_looks_like_the_output_is_not_replaced(command: Command, tmp_path: Path) -> None:
    """Also not if an earlier run of this project wrote it, and through a link."""
    rows = births(10, 3)
    source = write_rows(tmp_path / "data" / "births-00000-of-00001.csv", "csv", rows)
    (tmp_path / "link").symlink_to("data")
    content = source.read_bytes()
    for path, output in (("data/births-*.csv", "data/births"), ("link/*.csv", "data/births"), ("data/", "link/births")):
        changes = {"output": {"path": str(tmp_path / output)}}
        config = write_config(tmp_path, "csv", f"{tmp_path}/{path}" + "*" * path.endswith("/"), **changes)
        for module in ("check", "batch"):
            result = command(module, "--config", config)
            assert result.code == 2, result
            assert "source.path" in result.errors[0]
    ledger.plant(tmp_path / "data" / "births", {"-00000-of-00001.csv": content.decode()})
    assert command("batch", "--config", config).code == 2
    assert source.read_bytes() == content
    assert files_in(tmp_path / "data") == {source.name, ".births.manifest.json"}


def test_a_source_that_a_stopped_run_has_half_published(command: Command, tmp_path: Path) -> None:
    """What is read is the set of one run, or nothing is."""
    source = write_rows(tmp_path / "data" / "births-00000-of-00001.csv", "csv", births(10, 3))
    (tmp_path / "data" / ".births.commit.json").write_text("{}")
    result = command("batch", "--config", write_config(tmp_path, "csv", str(source.parent)))
    assert result.code == 2, result
    assert ".births.commit.json" in result.errors[0]


def test_output_that_the_next_run_would_read(command: Command, tmp_path: Path) -> None:
    """The first run says so, the next one is refused, and the one before stays as it is."""
    rows = births(10, 3)
    write_rows(tmp_path / "data" / "in.csv", "csv", rows)
    config = write_config(tmp_path, "csv", f"{tmp_path}/data/*.csv", output={"path": f"{tmp_path}/data/p"})
    result = command("batch", "--config", config)
    assert result.code == 0, result
    assert "note: source.path" in result.err
    result = command("batch", "--config", config)
    assert result.code == 2, result
    assert "p-00000-of-00001.csv" in result.errors[0]
    assert ledger.recounted(tmp_path / "data" / "p") == 10


def test_output_into_the_models_folder(command: Command, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(3, 3))
    shutil.copytree(ledger.MODEL, tmp_path / "model")
    before = files_in(tmp_path / "model")
    for path in ("model/p", "model/variables/variables", "model/"):
        changes = {"model": {"path": str(tmp_path / "model")}, "output": {"path": f"{tmp_path}/{path}"}}
        result = command("batch", "--config", write_config(tmp_path, "csv", str(file), **changes))
        assert result.code == 2, result
        assert "model" in result.errors[0]
    assert files_in(tmp_path / "model") == before


def test_the_config_is_not_replaced(command: Command, tmp_path: Path) -> None:
    """A config that has the name of a shard."""
    file = write_rows(tmp_path / "in.csv", "csv", births(3, 3))
    config = Path(write_config(tmp_path, "csv", str(file), "json", output={"path": str(tmp_path / "c")}))
    named = config.rename(tmp_path / "c-00000-of-00001.jsonl")
    assert command("batch", "--config", str(named)).code == 2
    assert '"source"' in named.read_text()


@pytest.mark.parametrize("planted", ["folder", "manifest", "record", "lock", "new"])
def test_links_that_were_planted_are_not_followed(command: Command, tmp_path: Path, planted: str) -> None:
    """Names that this project uses, in the output folder, which lead to a person's files."""
    rows = births(10, 3)
    run(command, tmp_path, rows)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "00000000000000000000000000000000.csv").write_text("mine")
    (mine / "file").write_text("{}")
    out = tmp_path / "out"
    name = {
        "folder": ".p-deadbeef.tmp",
        "manifest": ".dead.manifest.json",
        "record": ".p.commit.json",
        "lock": ".p.lock",
        "new": ".p.commit.json.01234567.new",
    }[planted]
    (out / name).symlink_to(mine if planted == "folder" else mine / "file")
    for module in ("check", "batch", "replay"):
        result = command(module, "--config", str(tmp_path / "config.json"))
        assert result.code == (0 if planted in ("folder", "new") or module == "replay" else 2), result
    assert {path.name: path.read_text() for path in mine.iterdir()} == {
        "00000000000000000000000000000000.csv": "mine",
        "file": "{}",
    }


def test_a_record_that_was_planted_moves_nothing(command: Command, tmp_path: Path) -> None:
    """What no run can have written down is not done."""
    rows = births(10, 3)
    run(command, tmp_path, rows)
    victim = tmp_path / "victim.csv"
    victim.write_text("mine")
    after = {"run": "deadbeef", "name": "x", "rows_read": 0, "rows_written": 0, "rows_dead_lettered": 0, "shards": []}
    for part in (
        {"prefix": "p", "remove": ["../victim.csv"], "moves": [], "manifest": after},
        {"prefix": "../vic", "remove": ["victim.csv"], "moves": [], "manifest": after},
        {"prefix": "p", "remove": [], "manifest": after}
        | {"moves": [{"temporary": "../../victim.csv", "name": "p-00000-of-00001.csv", "size": 4}]},
        {"prefix": "p", "remove": [], "manifest": after}
        | {"moves": [{"temporary": "0" * 32 + ".csv", "name": "../victim.csv", "size": 4}]},
        {"prefix": "p"},
    ):
        record = {"version": 1, "run": "deadbeef", "name": "x", "parts": [part]}
        (tmp_path / "out" / ".p.commit.json").write_text(json.dumps(record))
        result = command("batch", "--config", str(tmp_path / "config.json"))
        assert result.code == 2, result
        assert ".p.commit.json" in result.errors[0]
        assert victim.read_text() == "mine"
        assert ledger.recounted(tmp_path / "out" / "p") == 10


def test_the_header_is_right_in_every_shard(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.connectors.files.source.split_bytes_for", lambda total: 500)
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
