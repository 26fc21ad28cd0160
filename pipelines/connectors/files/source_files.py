"""Finds the files that a source reads: paths, globs and folders become a list of files, each of them once.

| what is named | is read |
|---|---|
| a file | that file |
| a folder | the files in it; all files below, if folders named `key=value` are in it, as Hive and Spark write them |
| a glob | the files that match, and all below matching folders named `key=value` |
| a file under several names | once |
| a link to a folder that is read already, such as one that leads in a circle | not entered |

Names that begin with a dot or an underscore are left out, unless they are named in full.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from inference.columns.bound import did_you_mean
from inference.log_throttle import first_line
from inference.stores.errors import StoreError
from pipelines import storage
from pipelines.connectors.files.partitions import is_partition, partition_of
from pipelines.rows.origin import text_of
from pipelines.storage import FileInfo, is_remote

_SHOWN = 3
_MAGIC = re.compile(r"[*?[]")


@dataclass
class Found:
    """Describes the files of a source.

    Attributes:
      files: each of them once, in the order of the patterns and their paths.
      notes: what was left out, one line each.
      problems: patterns without files, one line each.
    """

    files: list[FileInfo] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class _Seen:
    """What a search has met.

    Attributes:
      circles: links to folders that were entered already.
      skipped: folders that matched, and are not read.
    """

    circles: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def find(patterns: Sequence[str]) -> Found:
    """Finds the files of a source's patterns."""
    found = Found()
    once: dict[object, FileInfo] = {}
    repeated: dict[str, str] = {}
    for pattern in patterns:
        seen = _Seen()
        try:
            matched = _remote(pattern) if is_remote(pattern) else _local(pattern, seen)
        except StoreError as error:
            found.problems.append(f"source.path: {error}")
            continue
        except Exception as error:  # a file system's own errors, of any class
            found.problems.append(f"source.path: {text_of(pattern)} cannot be listed: {first_line(error)}")
            continue
        if not matched:
            found.problems.append(f"source.path: nothing matches {text_of(pattern)}{_why(pattern, seen)}")
        for identity, file in matched:
            first = once.setdefault(identity, file)
            if first.path != file.path:
                # A link is named by the file that it leads to.
                if not is_remote(file.path) and os.path.islink(first.path) and not os.path.islink(file.path):
                    once[identity], file = file, first
                repeated[file.path] = once[identity].path
        found.notes += _said(pattern, seen) if matched else []
    if repeated:
        names = [f"{path} is {first}" for path, first in repeated.items()]
        found.notes.append(f"source.path: files that have several names are read once: {_listed(names)}")
    found.files = list(once.values())
    return found


def _local(pattern: str, seen: _Seen) -> list[tuple[object, FileInfo]]:
    """The files that match a pattern, each with what is the same for all its names."""
    if os.path.isfile(pattern):
        return [_described(pattern, _base(os.path.dirname(pattern)))]
    if os.path.isdir(pattern):
        base, paths = _base(pattern), list(_in_folder(pattern, seen))
    else:
        base, paths = _base(_literal(pattern)), list(_matching(pattern, seen))
    return [_described(path, base) for path in sorted(set(paths))]


def _in_folder(folder: str, seen: _Seen) -> Iterator[str]:
    with os.scandir(folder) as entries:
        there = [entry for entry in entries if not _is_hidden(entry.name)]
    folders = [entry.path for entry in there if _is_folder(entry)]
    if any(is_partition(os.path.basename(path)) for path in folders):
        yield from _below(folder, seen)
        return
    seen.skipped += folders
    yield from (entry.path for entry in there if os.path.isfile(entry.path))


def _matching(pattern: str, seen: _Seen) -> Iterator[str]:
    """What a glob matches; `**` enters each folder once."""
    kept: list[str] = []
    folders: list[str] = []
    for path in _expanded(pattern, seen):
        if os.path.isdir(path):
            folders.append(path)
        elif not _is_hidden(os.path.basename(path)) and os.path.isfile(path):
            kept.append(path)
    yield from kept
    searched = {os.path.dirname(path) for path in kept}
    for folder in sorted(folders):
        name = os.path.basename(folder.rstrip("/"))
        if is_partition(name):
            yield from _below(folder, seen)
        elif not name or _is_hidden(name) or folder in seen.circles or not os.listdir(folder):
            continue
        elif not any(path == folder or path.startswith(f"{folder}/") for path in searched):
            seen.skipped.append(folder)


def _expanded(pattern: str, seen: _Seen) -> Iterator[str]:
    """What matches a glob, as `glob.glob(recursive=True)` has it, but for links that lead in a circle."""
    first, *others = re.split(r"(?:(?<=/)|^)(?:\*\*(?:/+|$))+", pattern)
    found: Iterable[str] = glob.glob(first) if not others or _MAGIC.search(first) else [first or "./"]
    for part in others:
        # Behind a last ** may be nothing: all names are meant.
        found = [
            os.path.join(folder, name)
            for folder in _folders(found, seen, lambda name: name.startswith("."))
            for name in glob.glob(part.rstrip("/") or "*", root_dir=folder)
        ]
    if not first:
        seen.circles = [path.removeprefix("./") for path in seen.circles]
        found = [path.removeprefix("./") for path in found]
    yield from found


def _below(folder: str, seen: _Seen) -> Iterator[str]:
    for path in _folders([folder], seen, _is_hidden):
        with os.scandir(path) as entries:
            yield from (entry.path for entry in entries if not _is_hidden(entry.name) and os.path.isfile(entry.path))


def _folders(tops: Iterable[str], seen: _Seen, is_hidden: Callable[[str], bool]) -> Iterator[str]:
    """The folders given and all below, each once. Links come last, so that folders are known by their own names."""
    entered: set[tuple[int, int]] = set()
    pending, links = [top for top in tops if os.path.isdir(top)], list[str]()
    while pending or links:
        folder = pending.pop() if pending else links.pop(0)
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            seen.circles += [folder] if os.path.islink(folder) else []
            continue
        entered.add((status.st_dev, status.st_ino))
        yield folder
        with os.scandir(folder) as entries:
            below = [entry for entry in entries if not is_hidden(entry.name) and _is_folder(entry)]
        pending += [entry.path for entry in below if not entry.is_symlink()]
        links += sorted(entry.path for entry in below if entry.is_symlink())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and not is_partition(name))


def _described(path: str, base: str) -> tuple[object, FileInfo]:
    status = os.stat(path)
    # Some file systems number files wrongly, or not at all: the other two must be the same then.
    number = status.st_ino or os.path.realpath(path)
    identity = (status.st_dev, number, status.st_size, status.st_mtime_ns)
    return identity, FileInfo(path, status.st_size, status.st_mtime_ns, partition_of(os.path.dirname(path), base))


def _literal(pattern: str) -> str:
    """The folders in front of the first wildcard."""
    names = pattern.split("/")
    plain = next((i for i, name in enumerate(names) if _MAGIC.search(name)), len(names) - 1)
    return "/".join(names[:plain])


def _base(folder: str) -> str:
    """The folder above those named `key=value` that a path ends with."""
    folder = folder.rstrip("/")
    while is_partition(folder.rpartition("/")[2]):
        folder = folder.rpartition("/")[0]
    return folder


def _remote(pattern: str) -> list[tuple[object, FileInfo]]:
    """As `_local`. An object store has no folders, only names with slashes in them."""
    pattern = re.sub(r"^[^:]+", lambda scheme: scheme[0].lower(), pattern)
    folder = pattern.rstrip("/")
    base = _base(_literal(pattern) if _MAGIC.search(pattern) else folder)
    if pattern.endswith("/"):
        found = _of_folder(folder)
    else:
        found = storage.match(pattern)
        if not found and not folder.endswith("**"):
            found = _of_folder(folder)
    return [(file.path, replace(file, partition=partition_of(file.path.rpartition("/")[0], base))) for file in found]


def _of_folder(folder: str) -> list[FileInfo]:
    """The files in a folder, all below if folders there are named `key=value`; of a glob, those below such folders."""
    found: list[tuple[FileInfo, str, list[str]]] = []
    place = folder.count("/")
    for file in storage.match(f"{folder}/**"):
        own, *others = file.path.split("/")[place:-1]
        if not file.path.endswith("/") and not any(map(_is_hidden, others)):
            found.append((file, own, others))
    if _MAGIC.search(folder):
        return [file for file, own, _ in found if is_partition(own)]
    everything = any(is_partition(others[0]) for _, _, others in found if others)
    return [file for file, _, others in found if everything or not others]


def _why(pattern: str, seen: _Seen) -> str:
    """What may be wrong with a pattern that matches nothing."""
    if is_remote(pattern):
        return "; check the bucket and the name"
    if seen.skipped:
        return f", only folders do: {_listed(seen.skipped)}; for the files in all folders below, write ** in the path"
    if os.path.isdir(pattern):
        return ": it is a folder without files that are not hidden"
    folder = os.path.dirname(pattern) or "."
    if not os.path.isdir(folder):
        return f" (there is no folder {text_of(folder)}); relative paths are relative to the working directory"
    return did_you_mean(os.path.basename(pattern), sorted(map(text_of, os.listdir(folder)))) or "; check the path"


def _said(pattern: str, seen: _Seen) -> list[str]:
    notes = []
    if seen.skipped:
        notes.append(
            f"source.path: {text_of(pattern)} also matches folders, which are not read: {_listed(seen.skipped)}; "
            "for the files in all folders below, write ** in the path"
        )
    if seen.circles:
        notes.append(f"source.path: links to folders that are read already are not entered: {_listed(seen.circles)}")
    return notes


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(text_of(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN:,} more"
