"""Resets what a process keeps of a run before the next one: whoever keeps some registers how."""

from __future__ import annotations

from collections.abc import Callable

_resets: list[Callable[[], object]] = []


def reset_by(reset: Callable[[], object]) -> None:
    """Registers a function that `reset` calls; modules do so when they are imported."""
    _resets.append(reset)


def reset() -> None:
    """Forgets the run before, so that a new one can begin in this process."""
    for each in _resets:
        each()
