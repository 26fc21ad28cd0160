"""Proposes which column feeds which input of a model: what `init` assumes, and what it leaves to a person."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from inference.columns import shapes
from inference.columns.bound import arrow_type
from inference.columns.coercion import coerce, describe, is_list, is_text, leaf_of, list_lengths
from model.specs import Signature, TensorSpec

_LABELS = frozenset({"label", "labels", "target", "targets", "y", "class", "outcome", "response", "groundtruth"})
_NAMES_ROWS = re.compile(r"(^|_)(id|key|uuid)$")
_NUMBERS_ROWS = re.compile(r"^(index|unnamed: ?\d+|)$")
_LISTED = 20


@dataclass
class Proposal:
    """Describes a proposed mapping.

    Attributes:
      columns: model input -> column, or the columns of a vector, where the names differ.
      key: the column that identifies a row, if one does.
      notes: what was assumed, one line each.
      missing: the inputs that nothing was found for, each with a line that says so.
    """

    columns: dict[str, str | list[str]] = field(default_factory=dict)
    key: str | None = None
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def propose_columns(
    specs: Sequence[TensorSpec], optional: Iterable[str], signature: Signature, sample: pa.RecordBatch, *, ordered: bool
) -> Proposal:
    """Finds a column, or several, for each input.

    Args:
      specs: the inputs.
      optional: names of those that the model does without.
      signature: of the model; a column that is named like one of its outputs is taken for what it was trained to give.
      sample: rows of the source.
      ordered: whether the order of the columns is that of the file.
    """
    found = Proposal()
    optional = set(optional)
    alike: dict[str, list[str]] = {}
    for name in sample.schema.names:
        alike.setdefault(_plain(name), []).append(name)
    used: set[str] = set()
    unmatched = []
    for spec in specs:
        column = _column_for(spec.name, alike)
        if column is None:
            unmatched.append(spec)
            continue
        used.add(column)
        if column != spec.name:
            found.columns[spec.name] = column
            found.notes.append(f"assumed: input '{spec.name}' is column '{column}'")
    found.key = _key_of(sample, used)
    left = [name for name in sample.schema.names if name not in used and name != found.key]
    open_lists = []
    for spec in unmatched:
        if spec.name in optional:
            found.notes.append(f"input '{spec.name}' is left out: no column is named so, and the model does without")
        elif shapes.is_single(spec):
            found.missing[spec.name] = _no_column(spec, left, sample)
        elif not _numbered(spec, left, found):
            open_lists.append(spec)
    for spec in open_lists:
        if len(open_lists) > 1 or not _only(spec, left, signature, sample, found, ordered):
            found.missing[spec.name] = _no_lists(spec, left, sample, several=len(open_lists) > 1)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _column_for(name: str, alike: Mapping[str, Sequence[str]]) -> str | None:
    """The column with the input's name, or one that differs only in case and punctuation.

    Args:
      name: of the input.
      alike: columns by their names without case and punctuation.
    """
    same = alike.get(_plain(name), [])
    return name if name in same else same[0] if len(same) == 1 else None


def _key_of(sample: pa.RecordBatch, inputs: set[str]) -> str | None:
    """A column that is named like a key, is no input, and holds another value in every row of the sample."""
    for name in sample.schema.names:
        if name in inputs or not _NAMES_ROWS.search(name.lower()):
            continue
        values = sample[name]
        if not values.null_count and not hasattr(values.type, "value_type") and len(values.unique()) == len(values):
            return str(name)
    return None


def _numbered(spec: TensorSpec, left: list[str], found: Proposal) -> bool:
    """Takes the columns that are named as the input, with a number behind: x1, x2, x3."""
    numbers: dict[int, str] = {}
    for name in left:
        match = re.fullmatch(r"(.*?)(\d+)", _plain(name))
        if match and match[1] == _plain(spec.name):
            numbers[int(match[2])] = name
    columns = [numbers[number] for number in sorted(numbers)]
    consecutive = bool(numbers) and max(numbers) - min(numbers) + 1 == len(numbers)
    if not consecutive or len(columns) < 2 or not shapes.can_be_flat(spec) or not shapes.fits(len(columns), spec):
        return False
    _take(spec, columns, left, found)
    found.notes.append(f"assumed: input '{spec.name}' is the columns {_names(columns)}, in the order of their numbers")
    return True


def _only(
    spec: TensorSpec, left: list[str], signature: Signature, sample: pa.RecordBatch, found: Proposal, ordered: bool
) -> bool:
    """Takes the only column of lists, or the columns with single values, if it is clear which; else says why not."""
    columns = [name for name in left if _fits_lists(spec, sample[name])]
    if len(columns) == 1:
        found.columns[spec.name] = columns[0]
        left.remove(columns[0])
        found.notes.append(f"assumed: input '{spec.name}' is column '{columns[0]}', the only one with such lists")
        return True
    if columns or not shapes.can_be_flat(spec) or None in shapes.row_sizes(spec) or spec.kind != "dense":
        return False
    outputs = {_plain(output.name) for output in signature.outputs}
    columns = [name for name in left if _fits_values(spec, sample[name])]
    aside = [name for name in columns if _plain(name) in _LABELS | outputs]
    aside += [name for name in columns if _NAMES_ROWS.search(name.lower()) or _NUMBERS_ROWS.search(name.lower())]
    without = [name for name in columns if name not in aside]
    if not shapes.fits(len(columns), spec):
        if not aside or not shapes.fits(len(without), spec):
            return False
        columns = without
    elif aside:
        # As many as the model takes, but one of them is likely to be none of its inputs.
        return False
    _take(spec, columns, left, found)
    order = "in the order of the source" if ordered else "in the order of their names"
    out = f", without {_names(aside)}, which by its name is no input" if columns is without and aside else ""
    found.notes.append(
        f"assumed: input '{spec.name}' is the {len(columns)} columns that are left with such values, {order}: "
        f"{_names(columns)}{out}; the model needs the order of its training"
    )
    return True


def _take(spec: TensorSpec, columns: list[str], left: list[str], found: Proposal) -> None:
    found.columns[spec.name] = columns
    for name in columns:
        left.remove(name)


def _fits_lists(spec: TensorSpec, values: pa.Array) -> bool:
    """Whether a column of a sample has lists that an input takes, as lists or as text in JSON."""
    type = arrow_type(spec.dtype)
    if type is None:
        return False
    is_empty = not len(values)
    values = values.drop_null()
    if not is_list(values.type):
        if not pa.types.is_string(values.type) or not len(values):
            return False
        return bool(pc.all(pc.match_substring_regex(values, r"^\s*\[")).as_py())
    if describe(leaf_of(values.type), type) is None:
        return False
    if not len(values):
        # Of no row, the type alone has to tell.
        return is_empty
    sizes = shapes.row_sizes(spec)
    if spec.shape is None or spec.kind != "dense" or is_list(values.type.value_type):
        return True
    lengths = set(list_lengths(values).tolist())
    if len(sizes) == 1:
        return sizes[0] is None or lengths == {sizes[0]}
    return shapes.can_be_flat(spec) and all(shapes.fits(length, spec) for length in lengths)


def _fits_values(spec: TensorSpec, values: pa.Array) -> bool:
    """Whether each value of a column of a sample is one that an input takes."""
    type = arrow_type(spec.dtype)
    if type is None or is_list(values.type) or describe(values.type, type) is None:
        return False
    if not len(values):
        return not pa.types.is_null(values.type) and is_text(values.type) == is_text(type)
    if values.null_count == len(values):
        return False
    if is_text(type):
        return is_text(values.type)
    _, failures = coerce(values, type)
    return not failures


def _no_column(spec: TensorSpec, left: Sequence[str], sample: pa.RecordBatch) -> str:
    name = _closest(spec.name, left)
    near = f"the closest is '{name}' ({sample.schema.field(name).type}); " if name is not None else ""
    return (
        f"no column for input '{spec.name}' ({spec.dtype} {shapes.in_words(spec)}); {near}map a column with "
        f'source.columns {{"{spec.name}": "<column>"}}, or give a value for every row with source.defaults'
    )


def _closest(name: str, columns: Sequence[str]) -> str | None:
    """Returns the column that is named most like an input, if one is at all: with its name inside, or much of it."""
    plain = _plain(name)
    inside = [column for column in columns if plain and _plain(column) and (plain in _plain(column))]
    if inside:
        return min(inside, key=len)
    near = difflib.get_close_matches(name.lower(), [column.lower() for column in columns], n=1, cutoff=0.5)
    return next((column for column in columns if near and column.lower() == near[0]), None)


def _no_lists(spec: TensorSpec, left: Sequence[str], sample: pa.RecordBatch, *, several: bool) -> str:
    fitting = [name for name in left if _fits_values(spec, sample[name])]
    lists = [name for name in left if _fits_lists(spec, sample[name])]
    if lists:
        there = f"{len(lists)} columns have such lists: {_names(lists)}"
        return (
            f"no column for input '{spec.name}' ({spec.dtype} {shapes.in_words(spec)}) that is sure; {there}; map one"
        )
    those = f": {_names(fitting)}" if fitting else ""
    which = "; which of them belong to this input does not show" if several and fitting else ""
    count = f"{shapes.count_in_words(spec)} values" if shapes.can_be_flat(spec) and spec.shape else "lists"
    return (
        f"no column for input '{spec.name}' ({spec.dtype} {shapes.in_words(spec)}): it takes {count} a row, and "
        f"{len(fitting)} columns are left with a value that suits it{those}{which}; name those that the model was "
        f'trained with, in their order: source.columns {{"{spec.name}": ["<column>", ...]}}'
    )


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
