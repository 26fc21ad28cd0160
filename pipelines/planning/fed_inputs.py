"""Finds inputs that no column feeds, and columns that feed them with something else, before the first row is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from inference.columns import shapes
from inference.columns.bound import Binding, InputBinding
from inference.columns.coercion import is_text, shown
from pipelines import storage
from pipelines.formats import FormatError, reader_class
from pipelines.rows.origin import text_of
from pipelines.storage import FileInfo

_HEAD_BYTES = 4096
_SAMPLED_ROWS = 100
_REQUEST = re.compile(
    rb'^\s*\{\s*(?:"signature_name"\s*:\s*"[^"]*"\s*,\s*)?"(instances|inputs)"\s*:\s*(\[\s*(.)|\{|\[)?'
)


def unfed(binding: Binding, source_columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Says which inputs are the same in every row.

    Args:
      binding: which column feeds which input.
      source_columns: the columns there are.

    Returns:
      What a person should know, and what stops the run, one line each.
    """
    notes = []
    for bound in binding.inputs:
        name = bound.spec.name
        if bound.is_constant:
            value = [element.default for element in bound.vector] if bound.vector else bound.default
            notes.append(
                f"warning: input '{name}' is {_short(value)} in every row, from source.defaults: no column feeds it; "
                f"{_map(bound)}"
            )
        elif not bound.elements:
            notes.append(
                f"input '{name}' is left out of every row: there is no column '{name}', and the model does without; "
                f"{_map(bound)}"
            )
        missing = [element.column for element in bound.vector if element.type is None]
        if missing and bound.elements:
            notes.append(
                f"warning: of input '{name}', {', '.join(missing)} comes from source.defaults in every row: the source "
                "has no such column"
            )
    if any(bound.elements for bound in binding.inputs) or not binding.inputs:
        return notes, []
    names = ", ".join(bound.spec.name for bound in binding.inputs[:20])
    return notes, [
        "source: no column feeds any input of the model, so every row would get the same prediction; map the columns "
        f"with source.columns, or name another source (inputs: {names}; columns: {', '.join(source_columns[:20])})"
    ]


def _map(bound: InputBinding) -> str:
    column = '"<column>"' if bound.depth == 0 else '["<column>", ...]'
    return f'to feed it, map source.columns {{"{bound.spec.name}": {column}}}'


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def hints(format: str, found: Sequence[FileInfo]) -> list[str]:
    """Says what a file probably is whose columns do not fit, or that cannot be read.

    Args:
      format: that the file is read as.
      found: the files.
    """
    file = next((file for file in found if file.size), None)
    if format != "json" or file is None:
        return []
    try:
        with storage.open_input(file.path) as opened:
            match = _REQUEST.match(opened.read(_HEAD_BYTES))
    except (OSError, ValueError):
        return []
    if match is None:
        return []
    return [f"source.path: {text_of(file.path)} is a request to a model server, not rows: {_as_rows(match)}"]


def _as_rows(match: re.Match[bytes]) -> str:
    if match[1] == b"inputs":
        return (
            'its "inputs" hold one list for each input; write one JSON object a line, such as {"<input>": <value>, ...}'
        )
    select = ".instances[]" if match[3] == b"{" else '.instances[] | {"<input>": .}'
    return (
        'its "instances" are the rows; write each as a JSON object on a line of its own, for example with '
        f"jq -c '{select}' FILE > rows.jsonl"
    )


def not_lists(
    binding: Binding, format: str, options: Mapping[str, Any], found: Sequence[FileInfo], mapped: pa.Schema
) -> list[str]:
    """Says which columns of text hold no lists, where the model takes lists: none of their first rows has one.

    Args:
      binding: which column feeds which input.
      format: of the files.
      options: the format's own settings.
      found: the files.
      mapped: the columns of the source.
    """
    wanted = [
        bound
        for bound in binding.inputs
        if bound.column in mapped.names and bound.depth and not bound.takes_single and _is_text(bound)
    ]
    file = next((file for file in found if file.size), None)
    if not wanted or file is None:
        return []
    try:
        sample = reader_class(format).sample(file.path, options, _SAMPLED_ROWS)
    except (FormatError, OSError):
        return []
    problems = []
    for bound in wanted:
        name = str(bound.column)
        cells = sample[name].drop_null() if name in sample.schema.names else pa.array([], pa.string())
        if len(cells) and not pc.any(pc.match_substring_regex(cells.cast(pa.string()), r"^\s*\[")).as_py():
            input = bound.spec.name
            problems.append(
                f"column '{name}' holds single values such as {shown(cells[0])}, and input '{input}' has shape "
                f"{shapes.in_words(bound.spec)}: it takes lists; write them in JSON, such as [1.0, 2.0], or gather a "
                f'vector of several columns with source.columns {{"{input}": ["{name}", "<column>", ...]}}'
            )
    return problems


def _is_text(bound: InputBinding) -> bool:
    return bound.column_type is not None and is_text(bound.column_type)
