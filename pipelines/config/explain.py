"""Explains what is wrong with a config, in a line for each mistake."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pipelines.config import environment
from pipelines.config.base import Strict
from pipelines.config.registry import TYPES
from pipelines.config.run import RunConfig

KEY_START = re.compile(r"[\w.$@/-]*")
"""What of a malformed --set is surely no value."""


_NOT_SHOWN = re.compile(r"headers|security|sasl", re.IGNORECASE)


_OBJECTS = ("model_type", "model_attributes_type", "dict_type", "list_type", "extra_forbidden", "too_short", "too_long")
"""Kinds of errors whose value is not shown: it stands where an object should, or the error says how long it is."""


_USER = re.compile(r"[^\s/'\"@]+@")
_FORM = re.compile(r"\S*<\S*>")
"""Finds the form of a value in a key's description, such as projects/<project>/topics/<name>."""


def explain(details: Any, written: Any, root: type[Strict] = RunConfig) -> str:
    """Writes one of pydantic's errors as a line: path, what is wrong, what would be right.

    Args:
      details: the error.
      written: the config as it stands in the file, without the values of the environment.
      root: what the file is to hold.
    """
    location = [part for part in details["loc"] if not _is_internal(str(part))]
    if len(location) > 1 and location[1] in TYPES.get(str(location[0]), {}):
        variant_of = TYPES[str(location[0])][str(location.pop(1))]
    else:
        variant_of = None
    places = [str(part) for part in location]
    for place in range(1, len(places)):
        if places[place - 1] == "headers":
            # What follows a header's name by mistake may be its value.
            places[place] = KEY_START.match(places[place])[0]  # type: ignore[index]
    where = ".".join(places)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        holder = _class_at(location[:-1], variant_of, root)
        if holder is not None and location[-1] in holder.elsewhere:
            return f"{where}: {holder.elsewhere[location[-1]]}"
        known = [] if holder is None else [field.alias or name for name, field in holder.model_fields.items()]
        listed = f" (known here: {', '.join(known)})" if known else ""
        return f"{where}: unknown key{near(str(location[-1]), known)}{listed}"
    if kind == "missing":
        return f"{where}: missing; it is required"
    given = details["input"]
    if kind == "union_tag_invalid":
        given, location = given.get("type") if isinstance(given, dict) else "", [*location, "type"]
        where, context = f"{where}.type", {"expected": "".join(f"'{type}'" for type in TYPES[where])}
        kind = "literal_error"
    shown = "" if _NOT_SHOWN.search(root.__name__) else _shown(given, _written(written, location), location)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return f"{where}: {shown or 'its value'} is not one of {', '.join(choices)}{near(str(given), choices)}"
    if kind == "value_error":
        said = str(context.get("error", ""))
        said = said.replace(repr(given), shown or "its value") if isinstance(given, str) else said
        return f"{where}: {said}" if where else said
    if kind == "string_pattern_mismatch":
        form = _form_of(_class_at(location[:-1], variant_of, root), location[-1])
        if form:
            return f"{where}: {shown or 'its value'} does not have the form {form}"
    message = f"{where}: {details['msg'][0].lower()}{details['msg'][1:]}"
    return message if kind in _OBJECTS or not shown else f"{message}, not {shown}"[:400]


def _written(content: Any, location: Sequence[Any]) -> Any:
    """What stands at a place of a config."""
    for part in location:
        if isinstance(content, dict):
            content = content.get(part)
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            content = content[part]
        else:
            return None
    return content


def _shown(given: Any, written: Any, location: Sequence[Any]) -> str:
    """A value as an error may show it; empty if it is a secret or may hold one."""
    if any(_NOT_SHOWN.search(str(part)) or environment.is_secret_key(str(part)) for part in location):
        return ""
    if isinstance(given, dict | list):
        return "an object" if isinstance(given, dict) else "a list"
    if isinstance(written, str) and environment.is_variable(written):
        given = written
    return _USER.sub("***@", repr(given))


def _is_internal(part: str) -> bool:
    """Whether a part of pydantic's path names an arm of a union, not a key."""
    return part in ("[key]", "str", "constrained-str", "DeclaredTensor") or part.startswith(("list[", "function-"))


def _class_at(location: Sequence[Any], variant_of: type[Strict] | None, root: type[Strict]) -> type[Strict] | None:
    """The class of the object at a place of a config; None if it has none."""
    found: Any = root
    for part in location:
        if get_origin(found) is dict:
            found = _class_of(get_args(found)[1])
            continue
        field = found.model_fields.get(part)
        if field is None:
            return None
        found = variant_of if part in TYPES and variant_of is not None else _class_of(field.annotation)
        if found is None:
            return None
    return None if get_origin(found) is dict else found


def _form_of(holder: Any, name: Any) -> str:
    """The form of a key's value, as its description shows it; empty if it shows none."""
    field = holder.model_fields.get(name) if holder is not None else None
    found = _FORM.search(field.description or "") if field is not None else None
    return found[0] if found else ""


def _class_of(annotation: Any) -> Any:
    """The class of objects that an annotation allows, or the dict of them; None if it allows none."""
    if get_origin(annotation) in (Union, UnionType):
        return next((found for arm in get_args(annotation) if (found := _class_of(arm)) is not None), None)
    if get_origin(annotation) is dict:
        return annotation if _class_of(get_args(annotation)[1]) is not None else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, Strict) else None


def near(name: str, known: Sequence[str]) -> str:
    """Returns a question whether a known name was meant, if one is near; else an empty text."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""
