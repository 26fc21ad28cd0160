"""Files that appear whole or not at all.

A run writes its shards under temporary names in a hidden folder beside the output. At its end they are moved to
`<prefix>-00000-of-0000N.<extension>`, after the shards of earlier runs were removed. A reader never sees half a
shard, nor shards of two runs together.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Sequence

from pipelines import files

_TEMPORARY = ".tmp"
_SHARD = re.compile(r"(?:-replay-[0-9a-f]{8})?-\d{5}-of-\d{5}\.[a-z]+$")


def _parts(prefix: str) -> tuple[str, str]:
    folder, _, name = prefix.rpartition("/")
    return (folder + "/" if folder or prefix.startswith("/") else ""), name


def temporary_folder(prefix: str, run_id: str) -> str:
    """The folder that holds a run's shards until they are published. Ends in a slash."""
    return f"{_temporary_prefix(prefix)}{run_id}{_TEMPORARY}/"


def _temporary_prefix(prefix: str) -> str:
    folder, name = _parts(prefix)
    return f"{folder}.{name or 'shards'}-"


def temporary_path(prefix: str, run_id: str, extension: str) -> str:
    """A new name for one shard in the making."""
    return f"{temporary_folder(prefix, run_id)}{uuid.uuid4().hex}.{extension}"


def shard_path(prefix: str, index: int, count: int, extension: str) -> str:
    """The name of a published shard.

    >>> shard_path("out/p", 0, 2, "csv")
    'out/p-00000-of-00002.csv'
    >>> shard_path("out/", 0, 2, "csv")
    'out/00000-of-00002.csv'
    """
    separator = "" if prefix.endswith("/") else "-"
    return f"{prefix}{separator}{index:05d}-of-{count:05d}.{extension}"


def pattern(prefix: str, count: int, extension: str) -> str:
    """A glob for the shards of one run."""
    separator = "" if prefix.endswith("/") else "-"
    return shard_path(prefix, 0, 1, extension) if count == 1 else f"{prefix}{separator}?????-of-{count:05d}.{extension}"


def published(prefix: str) -> list[str]:
    """Shards under a prefix, of whatever run and replay, sorted."""
    found = [file.path for file in files.match_prefix(prefix)]
    return [path for path in found if _is_shard(path, prefix)]


def _is_shard(path: str, prefix: str) -> bool:
    rest = path[len(prefix) :] if path.startswith(prefix) else path[len(os.path.normpath(prefix)) :].lstrip("/")
    return bool(_SHARD.match(rest if not prefix.endswith("/") else "-" + rest))


def publish(prefix: str, temporary: Sequence[str], extension: str, replaced: Sequence[str] = ()) -> list[str]:
    """Moves finished shards to their names and removes those of earlier runs.

    May be run again after it was interrupted: what was moved already stays.

    Args:
      prefix: of the shards.
      temporary: where they are.
      extension: of their names.
      replaced: files of other names that they take the place of too.

    Returns:
      The paths of the shards.
    """
    names = [shard_path(prefix, i, len(temporary), extension) for i in range(len(temporary))]
    waiting = {name: source for name, source in zip(names, sorted(temporary), strict=True) if _exists(source)}
    moved = set(names) - set(waiting)
    files.delete([path for path in sorted({*published(prefix), *replaced}) if path not in moved])
    for name, source in waiting.items():
        files.rename(source, name)
    return names


def _exists(path: str) -> bool:
    return bool(files.match(path))


def clean_up_all(prefix: str) -> None:
    """Removes the temporary shards of this run, and of earlier ones that were killed."""
    for folder in files.folders(_temporary_prefix(prefix), _TEMPORARY):
        if re.fullmatch(r"[0-9a-f]{8}", folder[len(_temporary_prefix(prefix)) : -len(_TEMPORARY) - 1]):
            files.delete_folder(folder)


def clean_up(prefix: str, run_id: str) -> None:
    """Removes a run's temporary shards."""
    files.delete_folder(temporary_folder(prefix, run_id))
