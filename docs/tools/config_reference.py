"""Writes the config reference: every key of configs/schema.json, as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_INTRODUCTION = """\
# Config reference

Every key of a run's config, from `configs/schema.json`, which is generated from the classes that read the config.
[The config](config.md) explains what belongs together. A key without a default in the table must be given.
"""


def reference_page(schema: dict[str, Any]) -> str:
    """Returns the page for a schema."""
    parts = [_INTRODUCTION, "## The run\n", table(schema, schema["$defs"])]
    for key, value in schema["properties"].items():
        for name in _objects(value):
            definition = schema["$defs"][name]
            parts += [f"## {_heading(key, definition)}\n", _description(definition), table(definition, schema["$defs"])]
            parts += _nested(definition, schema["$defs"])
    return "\n".join(part for part in parts if part)


def _nested(definition: dict[str, Any], definitions: dict[str, Any]) -> Iterator[str]:
    """Yields the tables of objects inside of an object."""
    for key, value in definition["properties"].items():
        for name in _objects(value):
            inner = definitions[name]
            yield from (f"### `{key}` of {_title(definition)}\n", _description(inner), table(inner, definitions))


def _heading(key: str, definition: dict[str, Any]) -> str:
    kind = definition["properties"].get("type", {}).get("const")
    return f'`{key}`, type `"{kind}"`' if kind else f"`{key}`"


def _title(definition: dict[str, Any]) -> str:
    kind = definition["properties"].get("type", {}).get("const")
    return f'`"{kind}"`' if kind else "it"


def _description(definition: dict[str, Any]) -> str:
    text = definition.get("description", "")
    return f"{text}\n" if text else ""


def table(definition: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Returns the table of an object's keys."""
    required = definition.get("required", ())
    lines = ["| key | type | default | |", "|---|---|---|---|"]
    for key, value in definition["properties"].items():
        default = "" if key in required else _default(value)
        cells = [f"`{key}`", type_of(value, definitions), default, value.get("description", "")]
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Returns text as the cell of a table; what stands in backquotes is left as it is."""
    parts = text.replace("\n", " ").replace("|", "\\|").split("`")
    return "`".join(part if index % 2 else _plain(part) for index, part in enumerate(parts))


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _default(value: dict[str, Any]) -> str:
    if "default" not in value or value["default"] is None:
        return "none"
    text = json.dumps(value["default"])
    return "see below" if isinstance(value["default"], dict) and value["default"] else f"`{text}`"


def type_of(value: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Returns a key's type in words."""
    if "$ref" in value:
        kind = definitions[value["$ref"].rpartition("/")[2]]["properties"].get("type", {}).get("const")
        return f'object of type `"{kind}"`' if kind else "object"
    for union in ("anyOf", "oneOf"):
        if union in value:
            arms = [type_of(arm, definitions) for arm in value[union] if arm.get("type") != "null"]
            return " or ".join(dict.fromkeys(arms)).replace(" or object of type", ",")
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in value["enum"])
    if value.get("type") == "array":
        return f"list of {type_of(value.get('items', {}), definitions)}"
    if value.get("type") == "object":
        more = value.get("additionalProperties")
        return f"object of {type_of(more, definitions)}" if isinstance(more, dict) and more else "object"
    return f"{value.get('type', 'any value')}{_bounds(value)}"


def _bounds(value: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {value[name]:,}" for name, sign in signs.items() if name in value]
    return f" ({', '.join(found)})" if found else ""


def _objects(value: dict[str, Any]) -> Iterator[str]:
    """Yields the names of the objects that a key may have, or hold."""
    if "$ref" in value:
        yield value["$ref"].rpartition("/")[2]
    more = [value[name] for name in ("items", "additionalProperties") if isinstance(value.get(name), dict)]
    for inner in (*value.get("anyOf", ()), *value.get("oneOf", ()), *more):
        yield from _objects(inner)
