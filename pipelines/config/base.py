"""Gives the base of all objects of a config, and the keys that outputs share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field

Name = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """Refuses unknown keys; what was read cannot be changed.

    Attributes:
      elsewhere: keys that a person may write here though they belong elsewhere -> why, and what to do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
    elsewhere: ClassVar[Mapping[str, str]] = {}


def variant(default: str) -> Discriminator:
    """Chooses among the variants of an object by its `type`; `default` where it names none."""

    def chosen(value: Any) -> Any:
        return value.get("type", default) if isinstance(value, dict) else getattr(value, "type", default)

    return Discriminator(chosen)


Columns = Annotated[list[Name], Field(min_length=1)]


Fraction = Annotated[float, Field(ge=0, le=1)]


MAX_FRACTION = Field(
    0.01,
    description="Largest share of the rows that may become dead letters; with more, the run ends with exit code 3.",
)


class StreamOutput(Strict):
    """Holds what the outputs have in common that only streams have; a subclass adds `type` and where the rows go."""

    columns: Columns | None = Field(
        None,
        description="Input columns and model outputs to write, in order; * stands for all. By default the key, then "
        "all outputs.",
    )
    window_s: Annotated[float, Field(gt=0)] = Field(
        60, description="Seconds after which a file of dead letters is published."
    )
    show: Annotated[int, Field(ge=0)] = Field(0, description="Rows a second to show on the console too; 0 shows none.")

    @property
    def row_format(self) -> str:
        """Returns the format whose types a row's values have."""
        return "json"

    @property
    def shard_format(self) -> str:
        """Returns the format of the files that a batch run writes."""
        return self.row_format

    @property
    def passes_attributes(self) -> bool:
        """Tells whether what came with a message beside its payload is wanted."""
        return False

    @abstractmethod
    def describe(self) -> str:
        """Returns the output in words."""
