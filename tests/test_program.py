"""`beam-tf-predict` is every `python -m` command of the project, and nothing else."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from model.version import __version__
from pipelines.__main__ import COMMANDS, main
from tests.support import processes
from tests.support.commands import ROOT

_IS_RUN = 'if __name__ == "__main__":'


def run(module: str, *arguments: str) -> tuple[int, str, str]:
    done = processes.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")


def test_every_command_is_in_the_table() -> None:
    paths = [path for package in ("model", "inference", "pipelines") for path in (ROOT / package).rglob("*.py")]
    runnable = {module_of(path) for path in paths if _IS_RUN in path.read_text("utf-8")}
    # The program itself, what writes configs/schema.json of a checkout, and a program of workers.
    others = {"pipelines", "pipelines.config", "pipelines.formats.orc.process"}
    assert {command.module for command in COMMANDS.values()} == runnable - others


def test_help_lists_the_commands_at_once() -> None:
    code, out, err = run("pipelines", "--help")
    assert (code, err) == (0, "")
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.does)}$", out, re.MULTILINE), name
        assert len(command.does) <= 80
    lines = processes.run(
        [sys.executable, "-X", "importtime", "-m", "pipelines", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in lines}
    assert not imported & {"tensorflow", "apache_beam", "pyarrow", "numpy", "pydantic", "rich", "httpx"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_the_module(name: str) -> None:
    """Usage lines, what is said of mistakes, exit codes."""
    module = COMMANDS[name].module
    for arguments in (["--help"], ["--version"], ["--config", "nowhere.json", "stray", "--no-such-option"]):
        assert run("pipelines", name, *arguments) == run(module, *arguments), arguments


@pytest.mark.parametrize("name", COMMANDS)
def test_the_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(COMMANDS[name].module).main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"beam-tf-predict {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["bacth"], "there is no 'bacth', did you mean batch?"),
        (["predictions"], "there is no 'predictions'"),
        (["--config", "x.json"], "there is no 'x.json'"),
        (["--json", "batch"], "unrecognized arguments: --json"),
    ],
    ids=str,
)
def test_what_is_no_command(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "usage: beam-tf-predict COMMAND [OPTIONS]"
    assert said in lines[-1]
    assert lines[-1].endswith("beam-tf-predict --help lists the commands")
