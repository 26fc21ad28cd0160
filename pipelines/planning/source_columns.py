"""Looks at the columns of all files of a source before a run, and holds them against what the run needs.

Of many files some are looked at, evenly spread, the first and the last among them: `MOST_FILES` where footers and
headers say what the columns are, `MOST_SAMPLED` where rows have to be read for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from inference.columns.bound import Binding, Element, InputBinding
from inference.columns.coercion import depth_of, describe
from inference.log_throttle import first_line
from pipelines.connectors.files.partitions import partition_fields
from pipelines.formats import FormatError, is_mixed
from pipelines.formats.base import mixed
from pipelines.planning.merged_types import are_alike, merged
from pipelines.rows.origin import text_of
from pipelines.storage import FileInfo, is_remote

MOST_FILES = 1000
MOST_REMOTE_FILES = 200
MOST_SAMPLED = 50
"""Files that are looked at: those with a footer or a header; those of them on other machines; those without."""

_SAMPLED = ("json", "tfrecord")
"""Formats whose columns only their rows tell. A column that the first rows miss may come later."""

_TEXT = ("csv", "json")
"""Formats whose values are decoded to the types that the plan has chosen."""

_THREADS = 8
_REMOTE_THREADS = 32


@dataclass(frozen=True)
class Columns:
    """Describes the columns of a source.

    Attributes:
      schema: all columns, each with a type for all files; none if all files are empty; None if none can be read.
      files: the files that were looked at and have columns, with their columns.
      refused: why files cannot be read, one line each.
      total: number of files of the source.
      looked_at: number of them that were looked at.
      both: columns that some files have, and their folders' names too.
      partitioned: columns of the names of folders.
      clashes: columns without a type for all files, which have their first file's.
    """

    schema: pa.Schema | None
    files: tuple[tuple[str, pa.Schema], ...] = ()
    refused: tuple[str, ...] = ()
    total: int = 0
    looked_at: int = 0
    both: tuple[str, ...] = ()
    partitioned: tuple[str, ...] = ()
    clashes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Differences:
    """Collects what different columns of files do: what a person should know, and what stops the run, one line each."""

    notes: list[str]
    problems: list[str]


def look_at(
    found: Sequence[FileInfo],
    read: Callable[[str], pa.Schema],
    format: str,
    key: str | None,
    most: int | None = None,
) -> Columns:
    """Looks at the columns of files.

    Args:
      found: the files.
      read: gives the columns of one; raises FormatError or OSError.
      format: of the files.
      key: the column that identifies a row, if there is one.
      most: how many files are looked at; by default it depends on their format, and where they are.
    """
    remote = any(is_remote(file.path) for file in found)
    usual = MOST_SAMPLED if format in _SAMPLED else MOST_REMOTE_FILES if remote else MOST_FILES
    chosen = spread(found, most or usual)

    def columns(file: FileInfo) -> pa.Schema | str:
        try:
            return read(file.path)
        except (FormatError, OSError) as error:
            return first_line(error)
        except Exception as error:  # a file system's own errors, of any class
            if not is_remote(file.path):
                raise
            return f"{file.path}: {first_line(error)}"

    if len(chosen) > 1:
        with ThreadPoolExecutor(_REMOTE_THREADS if remote else _THREADS) as pool:
            results = list(pool.map(columns, chosen))
    else:
        results = [columns(file) for file in chosen]
    partitions = partition_fields(found)
    schemas: list[tuple[str, pa.Schema]] = []
    both: dict[str, None] = {}
    for file, result in zip(chosen, results, strict=True):
        if isinstance(result, str) or not len(result):
            continue
        for name, _ in file.partition:
            both.update({name: None} if name in result.names else {})
            place = result.get_field_index(name)
            result = result.append(partitions[name]) if place < 0 else result.set(place, partitions[name])
        schemas.append((file.path, result))
    refused = tuple(result for result in results if isinstance(result, str))
    schema, clashes = _together([columns for _, columns in schemas], key)
    readable = len(refused) < len(results)
    return Columns(
        _finished(schema, format) if readable else None,
        tuple(schemas),
        refused,
        len(found),
        len(chosen),
        tuple(both),
        tuple(partitions),
        clashes,
    )


def spread(found: Sequence[FileInfo], most: int) -> list[FileInfo]:
    """Chooses at most so many files (2 or more), evenly spread, the first and the last among them."""
    if len(found) <= most:
        return list(found)
    return [found[i * (len(found) - 1) // (most - 1)] for i in range(most)]


def _together(schemas: Sequence[pa.Schema], key: str | None) -> tuple[pa.Schema, tuple[str, ...]]:
    """All columns with their types, and those for which there is no common type."""
    types: dict[str, pa.DataType] = {}
    clashes: dict[str, None] = {}
    done: set[pa.Schema] = set()
    for schema in schemas:
        # Most files of a source have the same columns.
        if schema in done:
            continue
        done.add(schema)
        for field in schema:
            known = types.get(field.name)
            both = field.type if known is None else merged(known, field.type, identifies=field.name == key)
            if both is None:
                clashes[field.name] = None
            else:
                types[field.name] = both
    marked = {field.name for schema in schemas for field in schema if field.metadata and is_mixed(field)}
    fields = [pa.field(name, type) for name, type in types.items()]
    return pa.schema([mixed(field) if field.name in marked else field for field in fields]), tuple(clashes)


def _finished(schema: pa.Schema, format: str) -> pa.Schema:
    """A field that is null in all rows of JSON is text, if it comes to that."""
    if format != "json":
        return schema
    return pa.schema([field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schema])


def notes_on(columns: Columns, format: str) -> list[str]:
    """Says what a person should know of the files, whatever is read of them."""
    notes = []
    if columns.refused and columns.schema is not None:
        shown, more = columns.refused[:3], len(columns.refused) - 3
        others = f" (and {more:,} more)" if more > 0 else ""
        notes.append(f"will become dead letters, as they cannot be read: {text_of('; '.join(shown))}{others}")
    if columns.looked_at < columns.total and columns.schema is not None:
        what = "first rows" if format in _SAMPLED else "columns"
        notes.append(
            f"source.path: the {what} of {columns.looked_at:,} of {columns.total:,} files were looked at; that others "
            "miss a column shows only when they are read"
        )
    if columns.both:
        notes.append(
            f"source.path: {_names(columns.both)}: in files, and in the names of their folders; the folders' values "
            "are taken"
        )
    return notes


def differences(columns: Columns, binding: Binding, key: str | None, passed: Sequence[str], format: str) -> Differences:
    """Says what it does that files have different columns.

    Args:
      columns: of the files.
      binding: which of them feed the model.
      key: the one that identifies a row, if there is one.
      passed: those that are written as they are.
      format: of the files.
    """
    notes: list[str] = []
    problems: list[str] = []
    if key is not None and (missing := _missing(columns, key)):
        if format in _SAMPLED:
            notes.append(
                f"source.key: the first rows of {missing} have no '{key}'; rows without it are named <file>:<offset>"
            )
        else:
            problems.append(
                f"source.key: {missing} {_have(columns, key)} no column '{key}', which identifies rows; leave these "
                "files out of source.path, choose another key, or none: then rows are named <file>:<offset>"
            )
    inputs = {element.column: bound for bound in binding.inputs for element in bound.elements}
    for bound in binding.inputs:
        for element in bound.elements:
            name = element.column
            if name != key and (missing := _missing(columns, name)):
                effect = _effect(bound, element)
                notes.append(f"source.path: {missing} {_have(columns, name)} no column '{name}': {effect}")
    for name in passed:
        if name not in inputs and name != key and (missing := _missing(columns, name)):
            notes.append(f"source.path: {missing} {_have(columns, name)} no column '{name}': it is null in their rows")
    for name in dict.fromkeys([*([key] if key else []), *inputs, *passed]):
        notes += _types_of(columns, name, inputs.get(name), name == key or name in passed, format)
    return Differences(notes, problems)


def _effect(bound: InputBinding, element: Element) -> str:
    """What becomes of rows that miss a column of the model."""
    name = bound.spec.name if not bound.vector else element.column
    if element.default is not None:
        return f"input '{bound.spec.name}' takes its default, {element.default!r}, in their rows"
    if bound.optional and bound.spec.kind == "dense":
        return f"the model's own default stands for input '{bound.spec.name}' in their rows"
    if bound.optional:
        return f"input '{bound.spec.name}' has no values in their rows"
    return f'their rows become dead letters; give a value for them with source.defaults {{"{name}": ...}}'


def _types_of(columns: Columns, name: str, bound: InputBinding | None, written: bool, format: str) -> Iterator[str]:
    """Notes that a column has different types in different files, where that makes a difference."""
    if columns.schema is None or name not in columns.schema.names:
        return
    first: dict[pa.DataType, str] = {}
    for file, schema in columns.files:
        if (place := schema.get_field_index(name)) >= 0 and not pa.types.is_null(schema.field(place).type):
            first.setdefault(schema.field(place).type, file)
    (known, *others) = first or {pa.null(): ""}
    others = [type for type in others if not are_alike(known, type)]
    if not others:
        return
    places = ", ".join(f"{type} in {text_of(first[type])}" for type in [known, *others[:3]])
    chosen = columns.schema.field(name).type
    said = f"source.path: column '{name}' is {places}"
    if written or format in _TEXT:
        effect = "what does not convert without loss becomes a dead letter" if name in columns.clashes else ""
        yield f"{said}: it is taken as {chosen}{'; ' + effect if effect else ''}"
    refused = [type for type in [known, *others] if bound is not None and not _suits(type, bound)]
    if refused and format not in _TEXT:
        files = _names([first[type] for type in refused])
        yield f"{said}: input '{bound.spec.name if bound else name}' cannot be made of it in files such as {files}"


def _suits(type: pa.DataType, bound: InputBinding) -> bool:
    return describe(type, bound.type) is not None and (depth_of(type) == bound.depth or depth_of(type) <= 1)


def _missing(columns: Columns, name: str) -> str:
    """The files that do not have a column, in words; nothing if all have it."""
    if columns.schema is None or name not in columns.schema.names:
        return ""
    return _names([file for file, schema in columns.files if name not in schema.names])


def _have(columns: Columns, name: str) -> str:
    return "has" if sum(name not in schema.names for _, schema in columns.files) == 1 else "have"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(text_of(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3:,} more"
