"""Runs the commands of documents: Python's modules in this process, servers beside it, a few programs of the shell."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any
from unittest import mock

import httpx

from tests.support import processes
from tests.support.commands import ROOT

_PYTHON = ".venv/bin/python"
_PROGRAM = "beam-tf-predict"
_PROGRAMS = ("printf", "head", "cut", "cat", "ls", "sort")
_READY_WITHIN_S = 90
_MEASURED = [
    (re.compile(r"\d[\d,]*(\.\d+)? (s|ms|rows/s|messages/s)\b"), r"<n> \2"),
    (re.compile(r"\b\d+ threads?\b"), "<n> threads"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "127.0.0.1:<port>"),
]


def targets() -> dict[str, list[str]]:
    """Returns the targets of the Makefile and the command lines of each."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "Makefile").read_text("utf-8").splitlines():
        if named := re.match(r"([\w-]+):", line):
            found[named[1]] = []
        elif line.startswith("\t") and found:
            found[list(found)[-1]].append(line.strip().removeprefix("@").replace("$(BIN)", ".venv/bin"))
    return found


def module_of(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """Returns the module that a command line runs, and its arguments; None if it runs none."""
    if words[0] in ("python", "python3", _PYTHON) and words[1:2] == ["-m"]:
        return words[2], list(words[3:])
    if words[0] == _PROGRAM:
        return "pipelines.__main__", list(words[1:])
    return None


class Shell:
    """Runs commands one after the other, in the current folder.

    A context: servers that commands start run until it ends.
    """

    def __init__(self) -> None:
        self._servers = contextlib.ExitStack()
        self._served = ""
        self._code = 0

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *error: object) -> None:
        self._servers.close()

    def run(self, line: str, more: str = "") -> tuple[int, str]:
        """Runs a command line.

        Args:
          line: the command.
          more: further arguments.

        Returns:
          The exit code, and what was printed, both outputs in their order.
        """
        words = shlex.split(f"{line} {more}")
        if words == ["echo", "$?"]:
            return 0, f"{self._code}\n"
        if words[0] == "make":
            return self._make(words[1:])
        if words[0] == "curl":
            return self._curl(words[1:])
        if words[0] in _PROGRAMS:
            done = processes.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
            return done.returncode, done.stdout + done.stderr
        if words[0] == _PYTHON and words[1].endswith(".py"):
            self._code, printed = run_script(words[1:])
            return self._code, printed
        named = module_of(words)
        if named is None:
            raise ValueError(f"{line}: a test cannot run this; say why in a comment before the block")
        if named[0] == "model.serve":
            return self._serve(named[1])
        self._code, printed = run_module(*named)
        return self._code, printed

    def _make(self, names: Sequence[str]) -> tuple[int, str]:
        printed = ""
        for recipe in (line for name in names for line in targets()[name]):
            code, more = self.run(recipe)
            printed += more
            if code:
                return code, printed
        return 0, printed

    def _serve(self, arguments: list[str]) -> tuple[int, str]:
        """Starts a server, at free ports in place of those that are named."""
        words = [
            "0" if before.endswith("port") else word for before, word in zip(["", *arguments], arguments, strict=False)
        ]
        if "--port" not in words:
            words += ["--port", "0"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        process = processes.start(
            [sys.executable, "-m", "model.serve", *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._servers.callback(process.wait)
        self._servers.callback(process.kill)
        timer = threading.Timer(_READY_WITHIN_S, process.kill)
        timer.start()
        printed = ""
        assert process.stdout is not None
        for line in process.stdout:
            printed += line
            if line.startswith("ready:"):
                self._served = re.findall(r"http://[\d.]+:\d+", line)[0]
                break
        timer.cancel()
        return process.poll() or 0, printed

    def _curl(self, words: Sequence[str]) -> tuple[int, str]:
        """Sends what curl would, to the server that was started last."""
        assert self._served, "no server was started before"
        url = re.sub(r"http://127\.0\.0\.1:\d+", self._served, next(word for word in words if "://" in word))
        body = words[words.index("-d") + 1] if "-d" in words else None
        answer = httpx.request("POST" if body else "GET", url, content=body, timeout=60)
        return 0, answer.text


def run_module(name: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Runs the command of a module in this process; returns its exit code and what it printed."""
    return _captured(lambda: importlib.import_module(name).main(list(arguments)))


def run_script(words: Sequence[str]) -> tuple[int, str]:
    """Runs a program of the repository in this process: its path, and its arguments."""
    path = str(ROOT / words[0])
    with mock.patch.object(sys, "argv", [path, *words[1:]]):
        return _captured(lambda: runpy.run_path(path, run_name="__main__"))


def _captured(run: Callable[[], Any]) -> tuple[int, str]:
    with tempfile.TemporaryFile("w+", encoding="utf-8", buffering=1) as file, _printing_to(file):
        try:
            found = run()
            code = found if isinstance(found, int) else 0
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        sys.stdout.flush()
        file.seek(0)
        return code, file.read()


@contextlib.contextmanager
def _printing_to(file: IO[str]) -> Iterator[None]:
    """Sends both outputs of the process to a file, those of libraries and child processes too."""
    kept = os.dup(1), os.dup(2)
    try:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def problem_of(line: str) -> str | None:
    """Returns what is wrong with a command that is not run: a target, module or option that is not there."""
    words = shlex.split(line)
    if words[0] == "make":
        missing = [name for name in words[1:] if name not in targets()]
        return f"the Makefile has no target {', '.join(missing)}" if missing else None
    named = module_of(words)
    if named is None:
        return None
    module, arguments = named
    if module.split(".")[0] not in ("model", "inference", "pipelines"):
        return None
    if module.startswith("pipelines."):
        with mock.patch("pipelines.cli.command.guarded", return_value=0):
            code, printed = run_module(module, arguments)
        if code:
            return printed
    _, known = run_module(module, [*[word for word in arguments[:1] if not word.startswith("-")], "--help"])
    unknown = [word for word in arguments if word.startswith("--") and word.partition("=")[0] not in known]
    return _problem_of_beam(unknown, arguments) if unknown else None


def _problem_of_beam(unknown: list[str], arguments: list[str]) -> str | None:
    """Returns what is wrong with the options that are left to Beam."""
    from pipelines.config.errors import ConfigError
    from pipelines.engine.options import options_from

    flags = [word for name in unknown for word in _with_value(arguments, arguments.index(name))]
    try:
        options_from(flags)
    except ConfigError as error:
        return str(error)
    return None


def _with_value(arguments: list[str], index: int) -> list[str]:
    following = arguments[index + 1 : index + 2]
    return [arguments[index], *(word for word in following if not word.startswith("--"))]


def differences(expected: Sequence[str], printed: str) -> list[str]:
    """Compares what a document shows with what was printed; a line `...` stands for any lines.

    Times, rates, numbers of threads and ports may differ. A line that ends with ` ...` need only begin alike.

    Returns:
      What is missing.
    """
    lines, missing, skipping = [settled(line) for line in printed.splitlines()], [], False
    at = 0
    for line in expected:
        if line == "...":
            skipping = True
            continue
        rest = lines[at:] if skipping else lines[at : at + 1]
        found = next((offset for offset, candidate in enumerate(rest) if _alike(settled(line), candidate)), None)
        if found is None:
            missing.append(line)
        else:
            at, skipping = at + found + 1, False
    if not skipping and at < len(lines) and expected:
        missing.append(f"further lines: {lines[at]}")
    return missing


def settled(line: str) -> str:
    """Returns a line without what is measured or chosen anew in each run."""
    for pattern, text in _MEASURED:
        line = pattern.sub(text, line)
    return " ".join(line.split())


def _alike(expected: str, line: str) -> bool:
    return line.startswith(expected.removesuffix(" ...")) if expected.endswith(" ...") else line == expected


def python(text: str, names: dict[str, Any], place: str) -> None:
    """Runs a block of Python; names go on to the next block of the document."""
    exec(compile(text, place, "exec"), names)
