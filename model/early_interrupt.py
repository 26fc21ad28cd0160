"""Ends a command that gets Ctrl-C while Python still imports its modules: with one line, in place of a traceback.

It imports next to nothing: a module that is run as a program calls it before its own imports.
"""

import os
import signal

_INTERRUPTED = 128 + signal.SIGINT


def end_at_once(number: int, frame: object) -> None:
    """Ends the process, which has made nothing yet."""
    os.write(2, b"\nstopped before anything was done\n")
    os._exit(_INTERRUPTED)


def begin() -> None:
    """Lets Ctrl-C end the process at once, unless it is ignored, as in the background of a shell."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)


def end() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt again, if nothing else has been set since `begin`."""
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
