"""Keeps off the terminal what C++ libraries print while they are imported."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from model import terminal
from model.imports import uncollected
from model.secrets import masked

_SAVED: list[int] = []
"""Holds the file descriptors that standard error had before it was swallowed, the outermost first."""


@contextlib.contextmanager
def swallowed_stderr() -> Iterator[None]:
    """Swallows what is written to standard error, by whatever code; gives it back if the block fails."""
    import tempfile

    sys.stderr.flush()
    saved = os.dup(2)
    _SAVED.append(saved)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            said.seek(0)
            os.write(saved, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            _SAVED.remove(saved)
            os.close(saved)


def give_back_stderr() -> None:
    """Gives standard error back for the last words of a process that a signal ends while it is swallowed."""
    if _SAVED:
        os.dup2(_SAVED[0], 2)


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Swallows what C++ libraries print to standard error while they load; gives it back if loading fails."""
    quiet_libraries()
    with swallowed_stderr(), uncollected():
        yield


def quiet_libraries() -> None:
    """Asks TensorFlow, gRPC and Beam to be silent about their start-up, unless the user asked for more."""
    import logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    terminal.log_to_stderr(logging.WARNING, "%(levelname)s: %(message)s")
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    handler = logging.getLogger().handlers[0]
    if not handler.filters:
        handler.addFilter(lambda record: "memory usage cannot be fetched" not in record.getMessage())
        handler.addFilter(_without_secrets)


def _without_secrets(record: Any) -> bool:
    """Masks what a line of the log, or its traceback, shows."""
    record.msg, record.args = masked(record.getMessage()), ()
    if record.exc_info and not record.exc_text:
        record.exc_text = masked("".join(traceback.format_exception(*record.exc_info)).rstrip())
    return True
