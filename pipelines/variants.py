"""What all objects of a config have in common."""

from __future__ import annotations

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
