"""State that a process keeps of the run in it: whoever keeps some registers how it is reset before the next run."""

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
