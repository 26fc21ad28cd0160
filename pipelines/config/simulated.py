"""Defines the simulated source of a config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipelines.config.base import Name, Strict
from pipelines.config.columns import ColumnsConfig, ColumnsField, DefaultsField, Encodings
from pipelines.config.paths import AnyPath


class SimulatedSource(Strict):
    """Makes messages at a set rate: generated births, or the lines of a file over and over. Only for streams."""

    type: Literal["simulated"]
    format: Literal["json"] = "json"
    rate: Annotated[float, Field(ge=0, le=10_000_000)] = Field(
        500, description="Messages a second; 0 sends as many as possible."
    )
    messages: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Number of messages; without end by default."
    )
    duration_s: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Seconds after which the source ends; without end by default."
    )
    seed: int = Field(2001, description="Seed of the generated births: the same seed gives the same births.")
    path: AnyPath | None = Field(
        None, description="File of messages to send instead of births, one object of JSON a line."
    )
    key: Name | None = Field("source_id", description="Field of the message that identifies a row.")
    columns: ColumnsConfig = ColumnsField
    defaults: dict[Name, Any] = DefaultsField
    encodings: Encodings = Field(
        {}, description='Fields of text that stands for bytes, for inputs of bytes: {"image": "base64"}.'
    )

    @property
    def reads(self) -> str:
        """Returns the file format whose reader decodes it."""
        return self.format

    def describe(self) -> str:
        """Returns the source in words."""
        count = f"{self.messages:,} " if self.messages else ""
        rate = f"{self.rate:,g} a second" if self.rate else "as many as possible"
        return f"{count}simulated messages, {rate}"
