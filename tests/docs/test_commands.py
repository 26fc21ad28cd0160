"""What checks the documents' commands finds what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks_of, commands_of
from tests.docs.commands import Shell, differences, problem_of


@pytest.mark.parametrize(
    "line",
    [
        "make nothing-of-this-name",
        ".venv/bin/python -m pipelines.init --model exports/mymodel",
        ".venv/bin/python -m pipelines.check --config a.json --no-such-option",
        ".venv/bin/python -m pipelines.batch --runner PrismRunner --no_such_option_of_beam 1",
        ".venv/bin/python -m model.deploy vertex --model m --no-such-option",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    assert problem_of(line)


@pytest.mark.parametrize(
    "line",
    [
        "make demo test",
        ".venv/bin/python -m pipelines.check --config a.json --model",
        ".venv/bin/python -m pipelines.batch --runner PrismRunner --prism_log_level debug",
        ".venv/bin/python -m model.deploy vertex --model m --dry-run",
    ],
)
def test_a_right_one_is_not(line: str) -> None:
    assert problem_of(line) is None


def test_what_is_printed_is_compared() -> None:
    printed = "start\nrows read:     1,450\ntime:          0.31 s (and 2.7 s to start)\nend\n"
    assert differences(["start", "...", "time: 9.1 s (and 1 s to start)", "end"], printed) == []
    assert differences(["start", "...", "rows read: 1,451", "..."], printed) == ["rows read: 1,451"]
    assert differences(["start"], printed) == ["further lines: rows read: 1,450"]
    assert differences(["end", "..."], printed) == ["end"]


def test_blocks_and_their_marks_are_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text(
        "<!-- not run: a reason -->\n```bash\nmake \\\n  demo\n```\ntext\n\n- item\n\n  ```json\n  {}\n  ```\n"
    )
    first, second = blocks_of(document)
    assert (first.line, first.language, first.mark, first.said) == (2, "bash", "not run", "a reason")
    assert [command.line.split() for command in commands_of(first)] == [["make", "demo"]]
    assert (second.line, second.text, second.mark) == (10, "{}\n", "")
    document.write_text("```json\n{}\n")
    with pytest.raises(ValueError, match="no end"):
        list(blocks_of(document))


def test_console_blocks_have_commands_and_output() -> None:
    block = Block(Path("a.md"), 1, "console", "$ ls\na\nb\n$ cat a\n")
    assert [(each.line, each.output) for each in commands_of(block)] == [("ls", ["a", "b"]), ("cat a", [])]


def test_the_shell_tells_exit_codes_and_refuses_what_it_does_not_know() -> None:
    with Shell() as shell:
        assert shell.run(".venv/bin/python -m pipelines.check --config nothing.json")[0] == 2
        assert shell.run("echo $?") == (0, "2\n")
        with pytest.raises(ValueError, match="cannot run"):
            shell.run("gcloud dataflow jobs list")


def test_programs_of_the_repository_run(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys\nprint(__name__, sys.argv[1:])\nsys.exit('said' if sys.argv[1:] else 0)\n")
    with Shell() as shell:
        assert shell.run(f".venv/bin/python {program}") == (0, "__main__ []\n")
        assert shell.run(f".venv/bin/python {program} a") == (1, "__main__ ['a']\n")
