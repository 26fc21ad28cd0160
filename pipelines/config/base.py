"""The base of all objects of a config, and the keys that outputs share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field

Name = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """Unknown keys are mistakes; what is read stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def variant(default: str) -> Discriminator:
    """Chooses among the variants of an object by its `type`; `default` where it names none."""

    def chosen(value: Any) -> Any:
        return value.get("type", default) if isinstance(value, dict) else getattr(value, "type", default)

    return Discriminator(chosen)


Columns = Annotated[list[Name], Field(min_length=1)]


Fraction = Annotated[float, Field(ge=0, le=1)]


_TOO_MANY = Field(0.01, description="A larger share of the rows makes the run fail (exit code 3).")


class StreamOutput(Strict):
    """What the outputs have in common that only streams have; a subclass adds `type` and where the rows go."""

    columns: Columns | None = Field(
        None,
        description="Input columns and model outputs to write, * for all; by default the key, then all outputs.",
    )
    window_s: Annotated[float, Field(gt=0)] = Field(60, description="Of the dead letters' files.")
    show: Annotated[int, Field(ge=0)] = Field(0, description="So many rows a second are shown on the console too.")

    @property
    def path(self) -> str:
        """There is no file."""
        return ""

    @property
    def format(self) -> str:
        """Of a row: its values are those of JSON."""
        return "json"

    @property
    def passes_attributes(self) -> bool:
        """Whether what came with a message beside its payload is wanted."""
        return False

    @abstractmethod
    def describe(self) -> str:
        """The output in words."""
