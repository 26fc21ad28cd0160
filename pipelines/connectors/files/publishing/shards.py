"""Names what a run writes: its shards, and the hidden files beside them.

A prefix `out/p` stands for the shards `out/p-00000-of-0000N.csv`. Beside them, hidden, are `out/.p.manifest.json`
(which shards there are), while a run goes on `out/.p.lock` and the folder `out/.p-<run>.tmp/`, and while it publishes
`out/.p.commit.json`. A prefix that ends in a slash, `out/`, has the same names without the `p`.
"""

from __future__ import annotations

import os
import re
import uuid
from typing import IO

from pipelines import storage
from pipelines.formats import EXTENSIONS as FILE_EXTENSIONS

EXTENSIONS = tuple(sorted({*FILE_EXTENSIONS.values(), "jsonl"}))
"""Of the files that this project writes."""

_ROLLING = r"\d{8}T\d{6}Z-[0-9a-f]{8}"
_TEMPORARY_SHARD = re.compile(rf"[0-9a-f]{{32}}\.({'|'.join(EXTENSIONS)})")


def split_prefix(prefix: str) -> tuple[str, str]:
    """Gives the folder of a prefix, with its slash, and the beginning of the names in it.

    >>> split_prefix("out/p"), split_prefix("out/"), split_prefix("p")
    (('out/', 'p'), ('out/', ''), ('', 'p'))
    """
    folder, slash, name = prefix.rpartition("/")
    return folder + slash, name


def identity(prefix: str) -> tuple[str, str]:
    """Gives the same pair for prefixes that mean the same files, however they are spelled."""
    folder, name = split_prefix(prefix)
    return storage.real_folder(folder), name


def hidden_path(prefix: str, what: str) -> str:
    """Gives the path of a hidden file that belongs to a prefix.

    >>> hidden_path("out/p", "lock"), hidden_path("out/", "lock")
    ('out/.p.lock', 'out/.lock')
    """
    folder, name = split_prefix(prefix)
    return f"{folder}.{name}.{what}" if name else f"{folder}.{what}"


def temporary_folder(prefix: str, run_id: str) -> str:
    """Gives the folder that holds a run's shards until they are published. Ends in a slash."""
    folder, name = split_prefix(prefix)
    return f"{folder}.{name + '-' if name else ''}{run_id}.tmp/"


def temporary_path(prefix: str, run_id: str, extension: str) -> str:
    """Gives a new path for one shard that is being written."""
    return f"{temporary_folder(prefix, run_id)}{uuid.uuid4().hex}.{extension}"


def run_of_folder(prefix: str, name: str) -> str | None:
    """Gives the run whose temporary folder has this name (without its path); None if it is no such folder."""
    _, stem = split_prefix(prefix)
    found = re.fullmatch(rf"\.{re.escape(stem + '-' if stem else '')}([0-9a-f]{{8}})\.tmp", name)
    return found[1] if found else None


def create(path: str, mode: int = 0o666) -> IO[bytes]:
    """Creates a temporary shard, in its run's temporary folder.

    Raises:
      OSError: the folder was removed while the run went on.
    """
    if storage.is_remote(path):
        return storage.open_output(path)
    try:
        return storage.create(path, mode)
    except FileNotFoundError:
        folder = os.path.dirname(path)
        raise OSError(f"{folder}, which holds this run's shards until it ends, was removed; run it again") from None


def create_private(path: str) -> IO[bytes]:
    """Creates a temporary shard with the access rights of its folder: its owner's only, unless the config says more."""
    mode = 0o600 if storage.is_remote(path) else os.stat(os.path.dirname(path)).st_mode & 0o666
    file = create(path, mode)
    if not storage.is_remote(path):
        os.fchmod(file.fileno(), mode)
    return file


def is_temporary_shard(name: str) -> bool:
    """Tells whether a name, without its path, is one that `temporary_path` gives."""
    return bool(_TEMPORARY_SHARD.fullmatch(name))


def shard_path(prefix: str, index: int, count: int, extension: str) -> str:
    """Gives the path of a published shard.

    >>> shard_path("out/p", 0, 2, "csv")
    'out/p-00000-of-00002.csv'
    >>> shard_path("out/", 0, 2, "csv")
    'out/00000-of-00002.csv'
    """
    return f"{_stem(prefix)}{index:05d}-of-{count:05d}.{extension}"


def pattern(prefix: str, count: int, extension: str) -> str:
    """Gives a glob for the shards of one run."""
    return shard_path(prefix, 0, 1, extension) if count == 1 else f"{_stem(prefix)}?????-of-{count:05d}.{extension}"


def replay_prefix(prefix: str, replay: str) -> str:
    """Gives the prefix of the shards that a replay adds to those of `prefix`."""
    return f"{_stem(prefix)}replay-{replay}"


def _stem(prefix: str) -> str:
    return prefix if prefix.endswith("/") or not prefix else f"{prefix}-"


def is_shard(prefix: str, name: str, extensions: tuple[str, ...] = EXTENSIONS) -> bool:
    """Tells whether a name, without its path, is one of a shard of this prefix, of a run or of a replay.

    >>> is_shard("out/p", "p-00000-of-00001.csv"), is_shard("out/p", "p-replay-0a1b2c3d-00000-of-00001.csv")
    (True, True)
    >>> is_shard("out/p", "p-00000-of-00009.pdf")
    False
    """
    _, stem = split_prefix(prefix)
    shard = rf"(replay-[0-9a-f]{{8}}-)?\d{{5,}}-of-\d{{5,}}\.({'|'.join(extensions)})"
    return bool(re.fullmatch(re.escape(_stem(stem)) + shard, name))


def is_rolling_file(prefix: str, name: str, extension: str) -> bool:
    """Tells whether a name, without its path, is one that a stream gives to a file of this prefix."""
    _, stem = split_prefix(prefix)
    return bool(re.fullmatch(rf"{re.escape(_stem(stem))}{_ROLLING}\.{extension}", name))


def published(prefix: str, extensions: tuple[str, ...] = EXTENSIONS) -> list[storage.FileInfo]:
    """Lists the files that have names of shards, of whatever run and replay, sorted."""
    folder, stem = split_prefix(prefix)
    return [
        storage.FileInfo(folder + entry.name, entry.size)
        for entry in storage.entries(folder, stem)
        if entry.size is not None and is_shard(prefix, entry.name, extensions)
    ]


def remove_local_folder(path: str) -> None:
    """Removes the temporary shards in a local folder, then the folder, if nothing else is in it.

    A folder of another user stays, links are not followed.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if os.fstat(number).st_uid != os.geteuid():
            return
        for name in filter(is_temporary_shard, os.listdir(number)):
            os.unlink(name, dir_fd=number)
        os.rmdir(path)
    except OSError:
        pass  # something else is in it
    finally:
        os.close(number)
