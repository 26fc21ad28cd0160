"""Defines the types of paths in a config, and goes through all paths that a config has.

A key that holds a path has one of these two types, and nothing else needs to know that it is one:

| type | may be | such as |
|---|---|---|
| `AnyPath` | on any file system | `source.path`, `source.schema` |
| `LocalPath` | on the machine that opens it, as a library of others does so | `security.ca_file` |

Both may begin with `~`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from pipelines.config.base import Name, Strict
from pipelines.config.home import expanded


@dataclass(frozen=True)
class PathMark:
    """Marks the type of a key that holds a path."""

    is_local: bool


def _local(path: str) -> str:
    if "://" in path:
        raise ValueError("it must be a local file: a library opens it, which knows no other; copy it to where it runs")
    return expanded(path)


AnyPath = Annotated[Name, AfterValidator(expanded), PathMark(is_local=False)]
LocalPath = Annotated[Name, AfterValidator(_local), PathMark(is_local=True)]


def mark_of(field: FieldInfo) -> PathMark | None:
    """Returns the mark of a key of a config that holds a path, or several; None for all other keys."""
    return next(_marks(field.metadata, field.annotation), None)


def _marks(metadata: Any, annotation: Any) -> Iterator[PathMark]:
    yield from (each for each in metadata if isinstance(each, PathMark))
    for inner in get_args(annotation):
        yield from _marks(getattr(inner, "__metadata__", ()), inner)


def paths_in(part: Strict, where: str = "") -> Iterator[tuple[str, str]]:
    """Lists the paths of a config, or of an object in it: (key, path), such as ("source.path", "in/*.csv").

    Args:
      part: the config or object.
      where: its own key.
    """
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        key = f"{where}.{field.alias or name}".lstrip(".")
        if isinstance(value, Strict):
            yield from paths_in(value, key)
        elif mark_of(field) is not None:
            yield from ((key, path) for path in ([value] if isinstance(value, str) else value or []))


def with_paths(part: Strict, change: Callable[[str], str]) -> Any:
    """Returns a config, or an object in one, with all of its paths changed.

    Args:
      part: the config or object.
      change: gives the path that takes the place of one.
    """
    changed: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, Strict):
            new: Any = with_paths(value, change)
        elif value is None or mark_of(field) is None:
            continue
        else:
            new = change(value) if isinstance(value, str) else [change(path) for path in value]
        if new != value:
            changed[name] = new
    return part.model_copy(update=changed) if changed else part
