"""Waits for what a test needs to have happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONG_S = 120.0
"""Against hanging only: a machine under load is slow."""


def wait_until(
    condition: Callable[[], T],
    what: str | Callable[[], str],
    within_s: float = LONG_S,
    every_s: float = 0.02,
) -> T:
    """Calls a condition until what it returns is true, and returns that.

    Args:
      condition: is called at least twice, the last time after the time is over.
      what: what is waited for, for the failure's message; a function is called when it fails.
      within_s: most seconds to wait.
      every_s: seconds between two calls.

    Raises:
      AssertionError: it did not become true in time.
    """
    until = time.monotonic() + within_s
    while True:
        is_over = time.monotonic() >= until
        if found := condition():
            return found
        if is_over:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"waited {within_s:g} s until {said}; the last answer was {found!r}")
        time.sleep(every_s)
