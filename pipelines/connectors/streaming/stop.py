"""Passes on the wish that a stream comes to its end: signals make it, sources look at it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines import process_state

STOPPING = threading.Event()
"""Set when sources should emit nothing more and report that they have finished."""
process_state.reset_by(STOPPING.clear)


@contextmanager
def on_signals(*numbers: int) -> Iterator[None]:
    """Sets STOPPING when a signal comes, while the block lasts; the second signal does what it would have done before.

    Does nothing outside the main thread, where Python takes no signals.

    Args:
      numbers: which; SIGINT and SIGTERM by default.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = numbers or (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in wanted}

    def stop(number: int, frame: object) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        # Not set here: the main thread may have been interrupted inside the event, while it held the event's lock.
        threading.Thread(target=STOPPING.set, name="stop").start()

    for number in wanted:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
