"""The commands beside the run itself: check, init, --json, --help, --set."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support import ledger, processes
from tests.support.commands import ROOT, Command
from tests.support.ledger import KEY, MODEL, assert_balanced, births, books_of, write_config, write_rows
from tests.support.pythons import skip_streams


def started(*arguments: str) -> tuple[str, set[str]]:
    """Runs a module as a command; gives its standard output and the packages that it imported."""
    done = processes.run(
        [sys.executable, "-X", "importtime", "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    imported = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time"))
    return done.stdout, {name.split(".")[0] for name in imported}


@pytest.mark.parametrize("module", ["batch", "check", "init", "replay"])
def test_help_answers_at_once(module: str) -> None:
    """Nothing is imported that takes its time."""
    out, imported = started(f"pipelines.{module}", "--help")
    assert "exit codes" in out or module == "init"
    assert not imported & {"tensorflow", "apache_beam", "pyarrow", "numpy", "pandas", "polars", "pydantic"}


def test_check_answers_soon() -> None:
    """Neither TensorFlow nor Beam is needed."""
    out, imported = started("pipelines.check")
    assert "natality" in out
    assert "mother_age" in out
    assert "nc0001" in out
    assert not imported & {"tensorflow", "apache_beam", "tfx_bsl", "polars"}


def interrupted_at(module: str, imported: str, *arguments: str) -> tuple[int, str, str]:
    """Runs a command that gets Ctrl-C when it imports a module."""
    program = (
        "import importlib.abc, os, runpy, signal, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {imported!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"sys.argv = [{module!r}, *{arguments!r}]\n"
        f"runpy.run_module('pipelines.{module}', run_name='__main__', alter_sys=True)\n"
    )
    done = processes.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "module", ["batch", "stream", "replay", "check", "init", "simulate", "compare", "recommend", "__main__"]
)
def test_ctrl_c_as_a_command_starts_is_one_line(module: str) -> None:
    arguments = ["batch"] if module == "__main__" else []
    ended = interrupted_at(module, "pipelines.cli.command", *arguments)
    assert ended == (130, "", "\nstopped before anything was done\n")


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("batch", "pipelines.planning.planner"),
        ("batch", "apache_beam"),
        ("stream", "pipelines.planning.planner"),
        ("stream", "apache_beam"),
        ("replay", "pipelines.planning.planner"),
        ("check", "pipelines.planning.planner"),
        ("init", "model.signature"),
    ],
)
def test_ctrl_c_before_a_run_begins_is_no_traceback(tmp_path: Path, module: str, imported: str) -> None:
    skip_streams(module)
    paths = ["--set", f"output.path={tmp_path}/p", "--set", f"dead_letters.path={tmp_path}/d"]
    arguments = ["--model", MODEL, "--source", "data/births-nc-2001.csv"] if module == "init" else paths
    code, out, err = interrupted_at(module, imported, *arguments)
    assert (code, out) == (130, "")
    assert any(line.startswith("stopped") for line in err.splitlines())
    assert "Traceback" not in err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("format", ledger.FORMATS_IN)
def test_check_as_json(command: Command, tmp_path: Path, format: str) -> None:
    rows = births(30, 1)
    file = write_rows(tmp_path / "in", format, rows)
    config = write_config(tmp_path, format, str(file), source={"columns": {"mother_race": "note"}})
    result = command("check", "--config", config, "--json", "--rows", "2")
    assert result.code == 0, result
    found = result.summary
    assert found["ok"] is True
    assert (found["files"], found["bytes"]) == (1, file.stat().st_size)
    assert found["signature"] == "serving_default"
    columns = {row["input"]: row["column"] for row in found["inputs"]}
    assert columns == {**{name: name for name in (*ledger.TEXTS, *ledger.NUMBERS)}, "mother_race": "note"}
    assert [row["column"] for row in found["output"]] == [KEY, "predictions"]
    assert [row[KEY] for row in found["sample"]] == [row[KEY] for row in rows[:2]]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ledger.FORMATS_IN)
def test_init_writes_a_config_that_runs(
    command: Command, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = births(60, 2)
    for row in rows:
        for name in ("cigarette_use", "alcohol_use", "gestation_weeks"):
            row[name] = row[name] or {"gestation_weeks": 39.0}.get(name, "Unknown")
    extension = ledger.EXTENSIONS[format]
    for number, part in enumerate((rows[:40], rows[40:])):
        write_rows(tmp_path / "data" / f"{number}.{extension}", format, part)
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", MODEL, "--source", f"data/*.{extension}", "--output", "configs/mine.json"]
    result = command("init", *arguments)
    assert result.code == 0, result
    assert command("init", *arguments).code == 2
    assert command("init", *arguments, "--force").code == 0
    config = json.loads((tmp_path / "configs" / "mine.json").read_text())
    assert config["source"]["key"] == KEY
    assert command("check", "--config", "configs/mine.json").code == 0
    result = command("batch", "--config", "configs/mine.json")
    assert result.code == 0, result
    books = ledger.read_books(config["output"]["path"], config["dead_letters"]["path"])
    assert_balanced(books, rows, {})


def test_init_finds_columns_that_are_nearly_named_like_inputs(command: Command, tmp_path: Path) -> None:
    rows = births(60, 3)
    names = [{"mother_age": "Mother Age", "is_male": "IS-MALE"}.get(name, name) for name in ledger.COLUMNS]
    content = ledger.lines(map(ledger.csv_row, rows), ",".join(names).encode())
    (tmp_path / "in.csv").write_bytes(content)
    result = command("init", "--model", MODEL, "--source", str(tmp_path / "in.csv"))
    assert result.code == 0, result
    assert result.summary["source"]["columns"] == {"mother_age": "Mother Age", "is_male": "IS-MALE"}
    assert "assumed: input 'mother_age' is column 'Mother Age'" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "/no/model", "--source", "data/births-*.csv"], ["--model", "/no/model"]),
        (["--model", MODEL, "--source", "data/nothing*.csv"], ["--source", "nothing"]),
        (["--model", MODEL, "--source", "data/README.md"], ["--source", "--format"]),
        (["--model", MODEL, "--source", "data/births-*.csv", "--format", "parquet"], ["--source", "Parquet"]),
        (["--model", MODEL, "--source", "data/births-*.csv", "--signature", "serving"], ["did you mean"]),
    ],
    ids=str,
)
def test_what_init_cannot_do(
    command: Command, arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    result = command("init", *arguments)
    assert result.code == 2, result
    assert len(result.errors) == 1, result
    assert all(word in result.errors[0] for word in words), result


def test_check_names_files_as_a_run_does(command: Command, tmp_path: Path) -> None:
    config = write_config(tmp_path, "csv", str(write_rows(tmp_path / "in.csv", "csv", births(3, 1))), "json")
    assert f"output: {tmp_path / 'out' / 'p'}-*.jsonl" in command("check", "--config", config).out.replace("\n", "")
    assert command("batch", "--config", config).code == 0
    assert [path.name for path in (tmp_path / "out").glob("p-*")] == ["p-00000-of-00001.jsonl"]


def test_the_summary_as_json(command: Command, tmp_path: Path) -> None:
    rows = births(50, 4)
    file = write_rows(tmp_path / "in.csv", "csv", [{**rows[0], "is_male": None}, *rows[1:]])
    result = command("batch", "--config", write_config(tmp_path, "csv", str(file)), "--json")
    assert result.out.count("\n") == 1
    summary = result.summary
    assert summary.keys() == {
        "name",
        "runner",
        "runtime",
        "rows_read",
        "rows_written",
        "rows_dead_lettered",
        "seconds",
        "startup_seconds",
        "rows_per_second",
        "output",
        "dead_letters",
        "dead_letter_fraction",
        "max_fraction",
        "notes",
        "ok",
        "stage_latency_ms",
    }
    assert list(summary["stage_latency_ms"]) == ["read", "model", "write"]
    for found in summary["stage_latency_ms"].values():
        assert 0 < found["p50"] <= found["p95"] <= found["p99"] <= found["max"]
    assert (summary["rows_read"], summary["rows_written"], summary["rows_dead_lettered"]) == (50, 49, 1)
    assert summary["dead_letter_fraction"] == 0.02
    assert summary["output"] == str(tmp_path / "out" / "p-00000-of-00001.csv")
    assert summary["dead_letters"] == str(tmp_path / "out" / "dead-00000-of-00001.jsonl")
    assert summary["seconds"] > 0
    assert "FnApiRunner" in summary["runner"]


def test_the_summary_for_people(command: Command, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "in.csv", "csv", births(50, 5))
    result = command("batch", "--config", write_config(tmp_path, "csv", str(file)))
    assert result.out.startswith("births: done\n")
    assert "rows read:     50\n" in result.out
    assert str(tmp_path / "out" / "p-00000-of-00001.csv") in result.out


def test_overrides_and_variables(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = births(20, 6)
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    monkeypatch.setenv("BIRTHS_SOURCE", str(file))
    monkeypatch.delenv("BIRTHS_MODEL", raising=False)
    config = write_config(
        tmp_path, "csv", "${BIRTHS_SOURCE}", model={"path": "${BIRTHS_MODEL:-" + MODEL + "}"}, batching={"max_rows": 9}
    )
    result = command(
        "batch", "--config", config, "--set", "output.format=json", "--set", f"output.columns={json.dumps([KEY])}"
    )
    assert result.code == 0, result
    assert books_of(tmp_path).output == [{KEY: row[KEY]} for row in rows]


def test_the_packaged_example_runs_from_anywhere(command: Command, tmp_path: Path) -> None:
    config = json.loads((ROOT / "configs" / "natality.json").read_text())
    result = command(
        "batch",
        "--json",
        f"--set=source.path={ROOT}/{config['source']['path']}",
        f"--set=output.path={tmp_path}/p",
        f"--set=dead_letters.path={tmp_path}/dead",
    )
    assert result.code == 0, result
    assert result.summary["rows_read"] == result.summary["rows_written"] == 1450


def test_single_record_mode_and_more_threads(command: Command, tmp_path: Path) -> None:
    rows = births(150, 7)
    file = write_rows(tmp_path / "in.csv", "csv", rows)
    config = write_config(tmp_path, "csv", str(file), batching={"max_rows": 1})
    result = command("batch", "--config", config, "--direct_num_workers=3")
    assert result.code == 0, result
    assert "3 threads" in result.out
    assert_balanced(books_of(tmp_path), rows, {})
