"""Defines the console in a config: output."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.base import StreamOutput


class ConsoleOutput(StreamOutput):
    """Shows a stream's predictions on the console, for people to look at: some rows a second, as lines of JSON."""

    type: Literal["console"]
    show: Annotated[int, Field(ge=1)] = Field(10, description="Rows a second to show.")

    def describe(self) -> str:
        """Returns the output in words."""
        return "the console"
