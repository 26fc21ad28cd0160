"""The simulated source of a config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipelines.config.base import Name, Strict
from pipelines.config.columns import ColumnsConfig, ColumnsField, DefaultsField, Encodings


class SimulatedSource(Strict):
    """Messages at a set rate: generated births, or the lines of a file over and over. Only for streams."""

    type: Literal["simulated"]
    format: Literal["json"] = "json"
    rate: Annotated[float, Field(ge=0, le=10_000_000)] = Field(
        500, description="Messages a second; 0 for as many as possible."
    )
    messages: Annotated[int, Field(ge=1)] | None = Field(None, description="How many; without end by default.")
    duration_s: Annotated[float, Field(gt=0)] | None = Field(None, description="For how long; without end by default.")
    seed: int = Field(2001, description="Of the generated births.")
    path: Name | None = Field(None, description="A file of messages, one object of JSON a line, in place of births.")
    key: Name | None = Field("source_id", description="The field that identifies a message.")
    columns: ColumnsConfig = ColumnsField
    defaults: dict[Name, Any] = DefaultsField
    encodings: Encodings = Field(
        {}, description='Fields of text that stands for bytes, for inputs of bytes: {"image": "base64"}.'
    )

    @property
    def reads(self) -> str:
        """The file format whose reader decodes it."""
        return self.format

    def describe(self) -> str:
        """The source in words."""
        count = f"{self.messages:,} " if self.messages else ""
        rate = f"{self.rate:,g} a second" if self.rate else "as many as possible"
        return f"{count}simulated messages, {rate}"
