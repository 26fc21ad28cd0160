"""What is printed: text of others cannot command a terminal."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from model import terminal
from model.console import Console
from model.serving.errors import note

EVIL = "[/red]\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\n\u2028:warning:[bold]\udcff"
SHOWN = r"[/red]\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\n\u2028:warning:[bold]\udcff"


def test_what_is_not_to_be_seen_is_escaped() -> None:
    assert terminal.escaped(EVIL) == SHOWN
    assert terminal.escaped("a\tb\nc\x1b", keep="\n\t") == "a\tb\nc\\x1b"


@pytest.mark.parametrize("text", ["", "plain", "naïve — 東京", "1\u00a0234", "می\u200cخواهم", "👩\u200d🔬", r"C:\x1b"])
def test_text_of_all_languages_stays(text: str) -> None:
    assert terminal.escaped(text) == text


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_what_was_escaped_can_be_encoded_and_holds_no_control_characters(text: str) -> None:
    shown = terminal.escaped(text)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert not any(character < " " or "\x7f" <= character < "\xa0" for character in shown)
    assert terminal.escaped(shown) == shown


@pytest.mark.parametrize("is_terminal", [False, True])
def test_consoles_take_text_for_text(is_terminal: bool) -> None:
    """In lines, titles, headers and cells; of its own Text and of other objects rich drops some characters before."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=is_terminal, color_system=None, width=300)
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    console.print(table)
    console.print(EVIL)
    console.print(EVIL, markup=True, emoji=True)
    console.print(Text(EVIL))
    console.print(Path(EVIL))
    text = shown.getvalue().replace("\x1b[1m", "").replace("\x1b[3m", "").replace("\x1b[0m", "")
    assert text.count(SHOWN) == 5
    assert all(line.isprintable() for line in text.split("\n"))


def test_every_way_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_line(EVIL)
    terminal.print_text(f"first\n\tsecond {EVIL}")
    terminal.print_line(EVIL, stderr=True)
    terminal.print_error(f"{EVIL}\nmore")
    note(EVIL)
    with pytest.raises(SystemExit) as ended:
        terminal.ArgumentParser(prog="command").parse_args([EVIL])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == SHOWN + "\nfirst\n\tsecond " + SHOWN.replace("\\n", "\n", 1) + "\n"
    lines = err.splitlines()
    assert lines[0] == lines[2] == SHOWN
    assert lines[1].startswith("error: [/red]")
    assert lines[1].endswith("more")
    assert lines[-1].endswith(SHOWN)
    assert all(line.isprintable() for line in lines)


def test_logs_are_escaped_too() -> None:
    """A message of this project is one line; what libraries log keeps its lines, and so do tracebacks."""
    formatter = terminal.LogFormatter("%(levelname)s: %(message)s")

    def logged(name: str, error: Exception | None = None) -> str:
        info = (type(error), error, None) if error is not None else None
        return formatter.format(logging.LogRecord(name, logging.WARNING, "", 1, "%s", (EVIL,), info))

    assert logged("pipelines.formats.csv") == f"WARNING: {SHOWN}"
    assert logged("apache_beam.runners") == "WARNING: " + SHOWN.replace("\\n", "\n", 1)
    ours, traced = logged("inference.endpoint.retries", ValueError(EVIL)).split("\n", 1)
    assert ours == f"WARNING: {SHOWN}"
    assert traced == "ValueError: " + SHOWN.replace("\\n", "\n", 1)


def test_a_stream_without_the_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    terminal.print_line("naïve 東京")
    Console().print("naïve 東京")
    sys.stdout.flush()
    assert raw.getvalue() == b"na\\xefve \\u6771\\u4eac\n" * 2
