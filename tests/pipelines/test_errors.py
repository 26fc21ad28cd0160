"""Mistakes of the person at the keyboard: one clear line each, at once, before TensorFlow or Beam are imported."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.telemetry.summary import Summary
from tests.servers.prism import built_prism
from tests.support import ledger, processes
from tests.support.commands import ROOT, Command
from tests.support.ledger import MODEL, assert_balanced, births, books_of, shards, write_config, write_rows

Changes = dict[str, Any]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A source that a config may name."""
    return write_rows(tmp_path / "births.csv", "csv", births(20, 1))


def renamed(name: str, new: str) -> list[str]:
    """The columns of the source, one with another name."""
    return [new if column == name else column for column in ledger.COLUMNS]


# What is wrong -> the config's changes, and words of the one line that says so.
WRONG: dict[str, tuple[Changes, list[str]]] = {
    "no model": ({"model": {"path": "/no/such/model"}}, ["model", "/no/such/model"]),
    "a folder that is no model": ({"model": {"path": "tests"}}, ["model", "tests", "saved_model.pb"]),
    "no such signature": ({"model": {"signature": "serving_defualt"}}, ["did you mean", "serving_default"]),
    "no such version": ({"model": {"path": str(Path(MODEL).parent), "version": "v9"}}, ["v9", "v1"]),
    "no such key": ({"source": {"key": "source_idd"}}, ["source.key", "source_idd", "did you mean 'source_id'"]),
    "a column that is not there": (
        {"source": {"columns": {"mother_age": "mother_agee"}}},
        ["mother_age", "mother_agee", "did you mean 'mother_age'"],
    ),
    "a mapping of no input": (
        {"source": {"columns": {"mother_ag": "note"}}},
        ["mother_ag", "did you mean 'mother_age'"],
    ),
    "a default for nothing": ({"source": {"defaults": {"plurallity": 1}}}, ["plurallity", "did you mean 'plurality'"]),
    "a default of the wrong type": ({"source": {"defaults": {"plurality": "many"}}}, ["plurality", "many", "float32"]),
    "no such output column": (
        {"output": {"columns": ["prediction"]}},
        ["output.columns", "prediction", "did you mean 'predictions'"],
    ),
    "a column twice": ({"output": {"columns": ["predictions", "predictions"]}}, ["output.columns", "twice"]),
    "a key with the name of an output": (
        {"source": {"key": "predictions", "column_names": renamed("source_id", "predictions")}},
        ["source.key", "key column 'predictions'", "model's output 'predictions'", "source.column_names"],
    ),
    "a column with the name of an output": (
        {
            "source": {"column_names": renamed("note", "predictions")},
            "output": {"columns": ["source_id", "predictions"]},
        },
        ["output.columns", "source 'predictions'", "model 'predictions'", "rename"],
    ),
    "a column with the name of what names rows": (
        {"source": {"key": None, "column_names": renamed("note", "key")}, "output": {"columns": ["key"]}},
        ["output.columns", "source's column 'key'", "source.key"],
    ),
    "a column with the name of the version": (
        {
            "source": {"column_names": renamed("note", "model_version")},
            "output": {"columns": ["model_version", "predictions"]},
        },
        ["output.columns", "source 'model_version'", "version", "rename"],
    ),
    "nothing matches": ({"source": {"path": "{tmp}/birth.csv"}}, ["source.path", "did you mean 'births.csv'"]),
    "no such folder": ({"source": {"path": "{tmp}/none/*.csv"}}, ["source.path", "{tmp}/none"]),
    "a dangling link": ({"source": {"path": "{tmp}/dangling.csv"}}, ["source.path", "{tmp}/dangling.csv"]),
    "an empty folder": ({"source": {"path": "{tmp}/empty"}}, ["source.path", "{tmp}/empty"]),
    "another format": ({"source": {"format": "parquet"}}, ["source", "parquet", "births.csv"]),
    "a format unknown": ({"source": {"format": "cvs"}}, ["source.format", "cvs", "did you mean 'csv'"]),
    "output under a file": ({"output": {"path": "{tmp}/births.csv/out"}}, ["output.path", "not a folder"]),
    "dead letters under a file": (
        {"dead_letters": {"path": "{tmp}/births.csv/x"}},
        ["dead_letters.path", "not a folder"],
    ),
    "both to one place": ({"dead_letters": {"path": "{tmp}/out/p"}}, ["dead_letters.path", "output.path"]),
    "an unknown key": ({"source": {"pth": "x"}}, ["source.pth", "unknown key", "did you mean 'path'"]),
    "an unknown part": ({"batchin": {}}, ["batchin", "did you mean 'batching'"]),
    "a number out of range": ({"batching": {"max_rows": 0}}, ["batching.max_rows", "0"]),
    "a text for a number": ({"dead_letters": {"max_fraction": "lots"}}, ["dead_letters.max_fraction", "lots"]),
    "a variable that is not set": ({"output": {"path": "${NO_SUCH_VARIABLE}/p"}}, ["output.path", "NO_SUCH_VARIABLE"]),
    "a list that is empty": ({"source": {"path": []}}, ["source.path"]),
}


def filled(value: Any, folder: Path) -> Any:
    """The value with {tmp} replaced, wherever it stands."""
    return json.loads(json.dumps(value).replace("{tmp}", str(folder)))


@pytest.mark.parametrize("what", WRONG)
def test_one_line_says_what_is_wrong(command: Command, tmp_path: Path, good: Path, what: str) -> None:
    changes, words = filled(WRONG[what], tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "nowhere")
    parts = {part: values for part, values in changes.items() if part != "batchin"}
    config = Path(write_config(tmp_path, "csv", str(good), **parts))
    if "batchin" in changes:
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    before = sorted(tmp_path.rglob("*"))
    for module in ("batch", "check"):
        result = command(module, "--config", str(config))
        assert result.code == 2, result
        assert result.out == ""
        assert len(result.errors) == 1, result
        assert result.err.splitlines() == result.errors
        for word in words:
            assert word in result.errors[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_all_mistakes_at_once(command: Command, tmp_path: Path, good: Path) -> None:
    config = write_config(
        tmp_path, "csv", str(good), source={"key": "kee"}, output={"columns": ["predicted"], "path": f"{good}/x"}
    )
    result = command("batch", "--config", config)
    assert result.code == 2
    assert len(result.errors) == 3, result
    config = write_config(tmp_path, "csv", str(good), source={"kee": 1}, output={"fromat": "csv", "format": "xml"})
    result = command("batch", "--config", config)
    assert result.code == 2
    assert len(result.errors) == 3, result


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"name": "x",}', ["not JSON", "line 1"]),
        ("", ["not JSON"]),
        ("[1]", ["JSON object"]),
        ('{"source": {"path": 1, "path": 2}}', ["path", "twice"]),
        ('{"dead_letters": {"max_fraction": NaN}}', ["NaN"]),
        (None, ["no such file", "did you mean", "config.json"]),
        (b"\xff\xfe", ["cannot be read"]),
    ],
)
def test_a_config_that_is_none(command: Command, tmp_path: Path, content: Any, words: list[str]) -> None:
    name = "confg.json" if content is None else "config.json"
    content = "{}" if content is None else content
    (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    result = command("batch", "--config", str(tmp_path / name))
    assert result.code == 2
    assert len(result.errors) == 1, result
    assert all(word in result.errors[0] for word in words), result


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runer", "DirectRunner"], ["--runer", "did you mean '--runner'"]),
        (["--runer=DirectRunner"], ["--runer", "did you mean '--runner'"]),
        (["stray.json"], ["stray.json", "--config"]),
        (["--set", "source.path"], ["source.path", "KEY=VALUE"]),
        (["--set", "source.pth=x"], ["source.pth", "did you mean 'path'"]),
        (["--set", "name.first=x"], ["name"]),
        (["--direct_num_workers", "many"], ["direct_num_workers", "many"]),
        (["--runner", "NoSuchRunner"], ["NoSuchRunner"]),
    ],
    ids=str,
)
def test_a_wrong_command_line(
    command: Command, tmp_path: Path, good: Path, arguments: list[str], words: list[str]
) -> None:
    result = command("batch", "--config", write_config(tmp_path, "csv", str(good)), *arguments)
    assert result.code == 2, result
    assert len(result.errors) == 1, result
    assert "Traceback" not in result.err
    assert all(word in result.errors[0] for word in words), result
    assert not (tmp_path / "out").exists()


def test_nothing_large_is_imported_for_a_mistake(tmp_path: Path, good: Path) -> None:
    config = write_config(tmp_path, "csv", str(good), source={"key": "kee"}, model={"signature": "nix"})
    code = (
        "import sys\n"
        "from pipelines import batch, check, replay\n"
        f"assert batch.main(['--config', {config!r}]) == 2\n"
        f"assert check.main(['--config', {config!r}]) == 2\n"
        f"assert check.main([]) == 0\n"
        f"assert replay.main(['--config', {config!r}]) == 0\n"
        "large = {'tensorflow', 'apache_beam', 'tfx_bsl', 'keras', 'grpc', 'polars'} & set(sys.modules)\n"
        "assert not large, large\n"
    )
    done = processes.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_no_permission(command: Command, tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good.chmod(0)
    if os.geteuid() == 0:
        # Root may read everything; this is what the operating system tells anybody else.
        allowed = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(good) and allowed(path, mode))
    result = command("batch", "--config", write_config(tmp_path, "csv", str(good)))
    assert result.code == 2
    assert "permission" in result.errors[0]


def test_too_many_dead_letters(command: Command, tmp_path: Path) -> None:
    """The output is there all the same, and so are the dead letters."""
    rows = births(100, 2)
    bad = [{**row, "is_male": None} for row in rows[:2]]
    file = write_rows(tmp_path / "in.csv", "csv", bad + rows[2:])
    result = command(
        "batch", "--config", write_config(tmp_path, "csv", str(file), dead_letters={"max_fraction": 0.019}), "--json"
    )
    assert result.code == 3
    assert len(result.errors) == 1, result
    dead_letters = tmp_path / "out" / "dead-00000-of-00001.jsonl"
    assert result.errors == [
        "error: too many rows were dead-lettered: 2 of 100 (2.00%), and dead_letters.max_fraction allows 1.90%; what "
        f"was written stays; see why in {dead_letters}, mend, then run python -m pipelines.replay"
    ]
    assert result.summary["ok"] is False
    assert_balanced(books_of(tmp_path), rows[2:], {row[ledger.KEY]: None for row in bad})
    config = write_config(tmp_path, "csv", str(file), dead_letters={"max_fraction": 0.02})
    assert command("batch", "--config", config).code == 0


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "done"),
        ({"rows_written": 60, "rows_dead_lettered": 40}, "done, but too many rows were dead-lettered"),
        ({"rows_written": 0, "rows_dead_lettered": 100, "ended_because": "of them"},
         "ended early, but too many rows were dead-lettered"),
        ({"rows_written": 60, "rows_dead_lettered": 39}, "rows are missing"),
        ({"lost": ("a shard is gone",)}, "rows are missing"),
        ({"rows_written": 101}, "more rows are written than were read"),
    ],
    ids=str,
)  # fmt: skip
def test_the_heading_of_a_summary(changes: Changes, outcome: str) -> None:
    assert summary_of(changes).outcome == outcome


def summary_of(changes: Changes) -> Summary:
    """The summary of a run of 100 rows."""
    facts = {"rows_read": 100, "rows_written": 100, "rows_dead_lettered": 0} | changes
    fraction = facts["rows_dead_lettered"] / 100
    return Summary(
        name="births", runner="FnApiRunner", seconds=1.0, startup_seconds=1.0, rows_per_second=100.0, output="out/p",
        dead_letters="out/d", dead_letter_fraction=fraction, max_fraction=0.1, ok=not changes, **facts,
    )  # fmt: skip


def test_a_sink_that_breaks_fails_the_run_and_publishes_nothing(
    command: Command, tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say."""
    ledger.plant(tmp_path / "out" / "p", {"-00000-of-00001.csv": "old"})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.formats.csv.writer.CsvWriter.write", full)
    result = command("batch", "--config", write_config(tmp_path, "csv", str(good)))
    assert result.code == 1
    assert len(result.errors) == 1, result
    assert "No space left" in result.errors[0]
    assert [path.read_text() for path in shards(tmp_path / "out" / "p")] == ["old"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"p-00000-of-00001.csv", ".p.manifest.json"}


@pytest.mark.parametrize("runner", ["FnApiRunner", "PrismRunner"])
def test_a_mistake_of_this_project_is_told_once(
    command: Command, tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch, runner: str
) -> None:
    """An exception that nobody expected: one traceback, with its causes, and one line, which is the last."""
    if runner == "PrismRunner":
        built_prism()

    def wrong(*_: object) -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise LookupError("then") from error

    monkeypatch.setattr("pipelines.formats.csv.writer.CsvWriter.write", wrong)
    result = command("batch", "--config", write_config(tmp_path, "csv", str(good)), "--runner", runner)
    assert result.code == 1, result
    lines = result.err.splitlines()
    assert [line for line in lines if "Error: " in line] == [
        "KeyError: 'first'",
        "LookupError: then",
        "error: LookupError: then; nothing was published",
    ]
    assert lines[-1].startswith("error: ")
    assert sum("Traceback" in line for line in lines) == 2, result
    assert sum(" in wrong" in line for line in lines) == 2, result


def test_rows_that_vanish_are_noticed_and_nothing_is_published(
    command: Command, tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that loses rows, for whatever reason, cannot go unnoticed."""
    import pipelines.connectors.writing.rows as sink

    whole = sink.WriteRows.process

    def lossy(self: Any, element: Any) -> None:
        origin, batch = element
        whole(self, (origin, batch.slice(0, batch.num_rows - 1)))

    monkeypatch.setattr(sink.WriteRows, "process", lossy)
    result = command("batch", "--config", write_config(tmp_path, "csv", str(good)))
    assert result.code == 3, result
    assert len(result.errors) == 1
    assert "1 missing" in result.errors[0]
    assert not (tmp_path / "out").exists()


def test_a_file_that_disappears_before_it_is_read(
    command: Command, tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pipelines.cli.run_batch as run_command

    execute = run_command.execute
    monkeypatch.setattr(run_command, "execute", lambda *a, **k: (good.unlink(), execute(*a, **k))[1])
    result = command("batch", "--config", write_config(tmp_path, "csv", str(good)))
    assert result.code == 1, result
    assert len(result.errors) == 1
    assert str(good) in result.errors[0]
    assert shards(tmp_path / "out" / "p") == []
