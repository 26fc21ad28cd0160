"""Does what all command lines have in common: arguments, errors on one line, exit codes.

Exit codes: 0 all rows accounted for; 1 something else went wrong; 2 the config or the command line is wrong;
3 the run ended, but rows are missing or too many were dead-lettered; 130 it was interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from model import early_interrupt, terminal
from model.imports import without_unused
from model.secrets import masked
from model.version import add_version

if TYPE_CHECKING:
    from pipelines.engine.failures import RunFailedError

OK, FAILED, WRONG, INCOMPLETE = 0, 1, 2, 3
INTERRUPTED = 130


class _Parser(terminal.ArgumentParser):
    """Shows no word that may be a part of a secret."""

    def error(self, message: str) -> NoReturn:
        start = "unrecognized arguments: "
        if message.startswith(start):
            words = message.removeprefix(start).split()
            options = [word.partition("=")[0] for word in words if word.startswith("-")]
            message = f"{start}{' '.join(options)}" if options else stray(words[0])
        super().error(message)


def stray(word: str) -> str:
    """Tells what is wrong with a word that belongs to no option; a part of a value, as of a header, is not shown."""
    if word.endswith(".json") or os.path.exists(word):
        return f"{word}: not expected here; a config is given with --config {word}"
    return (
        f"a word of {len(word)} characters belongs to no option; write values that have spaces in them in quotes: "
        "--set 'KEY=VALUE WITH SPACES'"
    )


def parser(
    module: str, description: str, config: str = "the run's config; without it, the packaged natality example"
) -> argparse.ArgumentParser:
    """Makes a parser with what every command takes: --config, with the help given, and --set."""
    made = _Parser(
        prog=f"python -m pipelines.{module}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config", metavar="FILE", help=config)
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help='override one value: --set source.path=new.csv; or several: --set \'{"source.path": "new.csv"}\'',
    )
    add_version(made)
    return made


def consoles() -> tuple[Any, Any]:
    """Consoles on standard output and standard error, which take text for text; no wrapping in a pipe."""
    from model.console import Console

    return Console(), Console(stderr=True)


def fail(problems: Sequence[str]) -> int:
    """Prints problems, one line each, and gives the exit code for a wrong config or command line."""
    for problem in problems:
        terminal.print_error(problem)
    return WRONG


def run_failed(error: RunFailedError) -> int:
    """Says why a pipeline failed; returns the exit code."""
    if error.details:
        terminal.print_text(error.details, stderr=True)
    terminal.print_error(str(error))
    return INCOMPLETE if error.incomplete else FAILED


def guarded(main: Callable[[], int]) -> int:
    """Runs a command; mistakes of the person who gave it become lines, not tracebacks."""
    with without_unused():
        return _guarded(main)


def end_at_once(number: int, frame: object) -> NoReturn:
    """Ends the process where it has made nothing yet; an exception would be lost in some imports."""
    os.write(2, b"\nstopped before anything was measured\n")
    os._exit(INTERRUPTED)


def interrupt(number: int, frame: object) -> NoReturn:
    """Ends what is under way in order, so that what the command has started ends with it."""
    raise KeyboardInterrupt


def _guarded(main: Callable[[], int]) -> int:
    from pipelines.config.errors import ConfigError

    try:
        early_interrupt.end()
        return main()
    except ConfigError as error:
        return fail(error.problems)
    except KeyboardInterrupt:
        # A terminal has shown ^C on this line.
        terminal.print_text("\n" * sys.stderr.isatty() + "stopped", stderr=True)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # a mistake of ours: its message may hold names and values, as any other may
        terminal.print_text(masked(traceback.format_exc()), stderr=True)
        terminal.print_error(masked(f"{type(error).__name__}: {error}"))
        return FAILED
