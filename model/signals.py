"""Hands Ctrl-C and SIGTERM to what a command does about them; says what becomes of its work when they end it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from model import terminal
from model.quiet import give_back_stderr

_AFTER_SIGNAL = 128
_WORDS: list[Callable[[], str]] = []
"""Holds the words of the blocks of `ended_by_signal` that run, the outermost first."""


@contextmanager
def signals_to(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM call a handler while the block runs; only the main thread of a process gets signals."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)


@contextmanager
def ended_by_signal(words: Callable[[], str]) -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM end the process at once while the block runs, with words on standard error.

    In a block within another one, both give up what they began, the inner one first, and both say what becomes of it.

    Args:
      words: gives up what was begun, if that is needed, and says what becomes of it; empty if there is nothing to say.
    """

    def stop(number: int, frame: object) -> None:
        said = "; ".join(filter(None, [each() for each in reversed(_WORDS)]))
        give_back_stderr()
        terminal.print_text(f"\nstopped: {said}" if said else "\nstopped", stderr=True)
        os._exit(_AFTER_SIGNAL + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _WORDS.append(words)
    try:
        with signals_to(stop):
            yield
    finally:
        _WORDS.pop()
