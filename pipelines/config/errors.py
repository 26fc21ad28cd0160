"""Defines the error that says what is wrong with a config or a command line."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.config import environment


class ConfigError(ValueError):
    """Raised when the config, the command line, or what they name, is wrong. Shows no secret, and no value of the
    environment.

    Attributes:
      problems: one line each: where, what, and what to do.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = [environment.hidden(problem) for problem in problems]
        super().__init__("\n".join(self.problems))
