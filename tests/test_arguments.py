"""Options that get what they cannot read: one line in plain words, of every command."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import pytest

from model import argument_types
from pipelines.__main__ import COMMANDS


@pytest.mark.parametrize("command", [command.module for command in COMMANDS.values()])
def test_no_option_shows_a_function(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """argparse names the function that reads an option, unless that says itself what is wrong."""
    readers: dict[str, Callable[[str], Any]] = {}
    add = argparse._ActionsContainer.add_argument

    def recorded(self: Any, *names: str, **settings: Any) -> Any:
        if "type" in settings:
            readers[names[0]] = settings["type"]
        return add(self, *names, **settings)

    monkeypatch.setattr(argparse._ActionsContainer, "add_argument", recorded)
    with pytest.raises(SystemExit):
        importlib.import_module(command).main(["--help"])
    if command in ("model.serve", "pipelines.simulate"):
        assert len(readers) > 5
    for name, reader in readers.items():
        for text in ("x", "", "nan", "-1", "1.5", "9" * 5000):
            try:
                reader(text)
            except argparse.ArgumentTypeError:
                continue
            except (ValueError, TypeError, OverflowError) as error:
                pytest.fail(f"{name} {text[:20]!r}: {type(error).__name__}")


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("model.serve", ["--job-run-seconds", "x"], "argument --job-run-seconds: 'x' is not a number"),
        ("model.serve", ["--job-shards", "2.5"], "argument --job-shards: '2.5' is not a whole number"),
        ("model.serve", ["--job-row-error-rate", "2"], "argument --job-row-error-rate: 2 is not between 0 and 1"),
        ("model.serve", ["--port", "x"], "argument --port: 'x' is not a whole number"),
        ("model.serve", ["--port", "70000"], "argument --port: 70000 is not a port"),
        ("pipelines.simulate", ["--rate", "fast"], "argument --rate: 'fast' is not a number"),
        ("pipelines.check", ["--rows", "all"], "argument --rows: 'all' is not a whole number"),
        ("pipelines.stream", ["--duration", "long"], "argument --duration: 'long' is not a number"),
    ],
)
def test_what_is_said(command: str, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        code = importlib.import_module(command).main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert said in capfd.readouterr().err


def test_numbers() -> None:
    assert argument_types.count("3") == 3
    assert argument_types.port("0") == 0
    assert argument_types.amount("0") == 0.0
    assert argument_types.share("1") == 1.0
    for reader, text in ((argument_types.count, "0"), (argument_types.positive, "0"), (argument_types.amount, "inf")):
        with pytest.raises(argparse.ArgumentTypeError):
            reader(text)
