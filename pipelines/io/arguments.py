"""Checks the arguments of the transforms with the rules of configs, so that both take the same, with the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
from pydantic import ValidationError

from inference.columns.bound import did_you_mean
from pipelines.config.base import Strict
from pipelines.config.explain import explain

_Kind = TypeVar("_Kind", bound=Strict)

WantedColumns: TypeAlias = Sequence[str] | pa.Schema | None
"""Names columns, or gives their types too; None for all."""


def checked(kind: type[_Kind], arguments: Mapping[str, Any]) -> _Kind:
    """Makes a part of a config of arguments.

    Args:
      kind: of the part.
      arguments: by the names that they have in configs; None for one that is not given.

    Raises:
      ValueError: with every mistake found, one a line.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        explained = [explain(details, given) for details in error.errors()]
        raise as_error({said.split(":", 1)[0]: said for said in explained}.values()) from None


def as_error(problems: Any) -> ValueError:
    """Makes an error of lines about a config, which name arguments as keys of its source or output."""
    return ValueError("\n".join(line.replace("source.", "").replace("output.path", "path") for line in problems))


def names_of(columns: WantedColumns) -> list[str] | None:
    """Returns the names of columns; None for all.

    Raises:
      ValueError: a text is given in place of a list of names, no name at all, or one twice.
    """
    if columns is None:
        return None
    if isinstance(columns, str):
        raise ValueError(f"columns: give a list of names, [{columns!r}], or a pyarrow.Schema")
    names = list(columns.names if isinstance(columns, pa.Schema) else columns)
    if not names:
        raise ValueError("columns: names no column; leave it out for all of them")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"columns: '{twice[0]}' is named twice")
    return names


def unknown(argument: str, names: Sequence[str], there: Sequence[str], where: str) -> list[str]:
    """Lists names of columns that are not there, one line each."""
    return [f"{argument}: {where} no column '{n}'{did_you_mean(n, there)}" for n in names if n not in there]
