"""Where a stream's rows go, by its config: looked at before anything slow is imported; mistakes show at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from pipelines.formats import writer_class
from pipelines.output_config import ConsoleOutput, FileOutput
from pipelines.streams import rolling

if TYPE_CHECKING:
    from pipelines.plan import Plan
    from pipelines.sinks.rows import WriteRows


class Destination(ABC):
    """Where the rows of a stream go."""

    @abstractmethod
    def check(self) -> None:
        """Whether rows can be written there.

        Raises:
          ConfigError: it is not there, or does not take them.
        """

    def recover(self) -> list[str]:
        """Completes what a killed run left; gives what a person should know of it, one line each."""
        return []

    @abstractmethod
    def sink(self) -> WriteRows | None:
        """What writes the rows; None if nothing does but the console."""

    @abstractmethod
    def place(self) -> str:
        """Where the rows are, as the summary says it."""


def destination(plan: Plan) -> Destination:
    """The destination that a plan's config names."""
    output = plan.config.output
    if isinstance(output, FileOutput):
        return _Files(plan, output)
    return _Console(output)


def recovered(prefix: str, extension: str) -> list[str]:
    """Publishes the files that a killed run left; gives a line about them."""
    count = rolling.recover(prefix, extension)
    return [f"published {count} file{'s' * (count > 1)} that a stopped run left at {prefix}"] if count else []


class _Console(Destination):
    def __init__(self, output: ConsoleOutput) -> None:
        self._output = output

    def check(self) -> None:
        """It takes anything."""

    def sink(self) -> None:
        return None

    def place(self) -> str:
        return self._output.describe()


class _Files(Destination):
    def __init__(self, plan: Plan, output: FileOutput) -> None:
        self._plan = plan
        self._output = output
        self._extension = writer_class(output.format).extension

    def check(self) -> None:
        """The plan has looked at the folder."""

    def recover(self) -> list[str]:
        return recovered(self._output.path, self._extension)

    def sink(self) -> WriteRows:
        from pipelines.graph import output_options
        from pipelines.sinks.rolling_file import WriteRolling

        return WriteRolling(self._plan, output_options(self._plan), self._output.window_s)

    def place(self) -> str:
        return rolling.pattern(self._output.path, self._extension)
