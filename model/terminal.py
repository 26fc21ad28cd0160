"""Prints for commands: text of others, such as names and values, is made harmless before a terminal sees it.

A terminal obeys escape sequences, whoever wrote them: a file name or a cell could move the cursor, set the window's
title, or overwrite the lines above. Every command of this project prints through this module, or through `console.py`.
"""

import argparse
import logging
import sys
import unicodedata
from types import TracebackType
from typing import IO, NoReturn

_JOINERS = "\u200c\u200d"
"""Zero width (non-)joiners: Persian, the scripts of India and emoji are written with them."""

_OURS = ("model", "inference", "pipelines")


def escaped(text: str, *, keep: str = "") -> str:
    """Returns text with everything that is not to be seen replaced by its escape sequence in Python.

    That is all control characters, line and paragraph separators, marks of direction and other invisible
    characters, and lone surrogates, as which Python reads the bytes of a file name that are not UTF-8.

    Args:
      text: what somebody else wrote.
      keep: characters to leave as they are, for example newlines.

    >>> print(escaped("a\\x1b[31mb\\r\\u202ec"))
    a\\x1b[31mb\\r\\u202ec
    """
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def print_line(text: str, *, stderr: bool = False) -> None:
    """Prints one line: a newline within the text is escaped too.

    Args:
      text: the line.
      stderr: print on standard error, in place of standard output.
    """
    _print(escaped(text), stderr)


def print_text(text: str, *, stderr: bool = False) -> None:
    """Prints text of several lines, such as a traceback.

    Args:
      text: the lines.
      stderr: print on standard error, in place of standard output.
    """
    _print(escaped(text, keep="\n\t"), stderr)


def print_error(message: str) -> None:
    """Prints `error: <message>` on standard error, on one line whatever the message holds."""
    print_line(f"error: {' '.join(message.split())}", stderr=True)


def make_tolerant(stream: IO[str]) -> None:
    """Sets a stream to escape what its encoding does not have, in place of failing."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and getattr(stream, "errors", None) == "strict":
        reconfigure(errors="backslashreplace")


class LogFormatter(logging.Formatter):
    """Formats records of a log; a message of this project's is one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        ours = record.name.split(".", 1)[0] in _OURS
        return escaped(super().formatMessage(record), keep="" if ours else "\n\t")

    def formatException(
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        return escaped(super().formatException(ei), keep="\n\t")


def log_to_stderr(level: int, format: str) -> None:
    """Lets the root logger write to standard error, unless it has a handler already.

    Args:
      level: the least level that is written, of those in `logging`.
      format: as of `logging.basicConfig`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter(format))
    logging.basicConfig(level=level, handlers=[handler])


class ArgumentParser(argparse.ArgumentParser):
    """Parses a command line; its errors show arguments harmlessly: a glob in the shell makes arguments of file
    names.
    """

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print_line(f"{self.prog}: error: {message}", stderr=True)
        raise SystemExit(2)


def _is_shown(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _print(text: str, stderr: bool) -> None:
    stream = sys.stderr if stderr else sys.stdout
    make_tolerant(stream)
    print(text, file=stream, flush=True)
