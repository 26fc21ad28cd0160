"""Reads and writes files on any path: local ones with the standard library, others through Beam's FileSystems.

Beam is imported only for a path that has a scheme, so that local checks answer at once.
"""

from __future__ import annotations

import errno
import glob
import io
import os
import re
import stat
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

from inference.stores.access import check_access
from inference.stores.file_systems import file_systems
from inference.stores.kinds import is_remote as is_remote
from inference.stores.meanings import in_words


@dataclass(frozen=True)
class FileInfo:
    """Describes a file that a pattern matched.

    Attributes:
      path: full path.
      size: bytes.
      modified: when it was last written, in ns since 1970; 0 where the file system does not say.
      partition: columns, and their values as text, that the names of a source file's folders hold.
    """

    path: str
    size: int
    modified: int = 0
    partition: tuple[tuple[str, str | None], ...] = ()


def look_at_store(path: str, *, to_write: bool = False) -> None:
    """Makes sure that the store of a path lets this process see it, as `check_access` does; a local path has none."""
    if is_remote(path):
        check_access(path, to_write=to_write)


def match(pattern: str, *, hidden: bool = False) -> list[FileInfo]:
    """Finds the files that match a path or glob, sorted by path. A folder means the files in it.

    Names that begin with a dot or an underscore are left out, unless `hidden` or named in full.
    """
    if is_remote(pattern):
        wanted = pattern + "*" if pattern.endswith("/") else pattern
        found = [_remote_info(f) for f in _matching(wanted)]
        return sorted(
            (f for f in found if hidden or f.path == pattern or not _is_hidden(f.path)), key=lambda file: file.path
        )
    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "*")
    named = os.path.isfile(pattern)
    paths = [pattern] if named else glob.glob(pattern, recursive=True)
    return [
        _local_info(path)
        for path in sorted(paths)
        if os.path.isfile(path) and (hidden or named or not _is_hidden(path))
    ]


def _matching(pattern: str) -> list[Any]:
    with in_words(pattern, "list"):
        return list(file_systems(pattern).match([pattern])[0].metadata_list)


def _is_hidden(path: str) -> bool:
    return path.rpartition("/")[2].startswith((".", "_"))


def describe(path: str) -> FileInfo:
    """Looks at one file, whose path is taken literally. Raises FileNotFoundError."""
    if not is_remote(path):
        return _local_info(path)
    with in_words(path, "read"):
        systems = file_systems(path)
        try:
            return _remote_info(systems.get_filesystem(path).metadata(path))
        except Exception:  # a file system's own errors, of any class
            if systems.exists(path):
                raise
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None


def _local_info(path: str) -> FileInfo:
    found = os.stat(path)
    return FileInfo(path, found.st_size, found.st_mtime_ns)


def _remote_info(found: Any) -> FileInfo:
    return FileInfo(found.path, found.size_in_bytes, int((found.last_updated_in_seconds or 0) * 1e9))


@dataclass(frozen=True)
class Entry:
    """Describes a name in a folder.

    Attributes:
      name: without the folder.
      size: bytes of a regular file; None for a folder, a link and all else.
    """

    name: str
    size: int | None


def entries(folder: str, begin: str) -> list[Entry]:
    """Lists the names in a folder that begin with `begin`, sorted; links are not followed, nothing is left out.

    Args:
      folder: ends in a slash, or is empty for the working directory.
      begin: taken literally.
    """
    if is_remote(folder):
        found = [(file.path[len(folder) :], file.size) for file in match(f"{folder}{begin}*", hidden=True)]
        return sorted((Entry(name, size) for name, size in found if "/" not in name), key=lambda entry: entry.name)
    try:
        names = [name for name in os.listdir(folder or ".") if name.startswith(begin)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [Entry(name, size_of(folder + name)) for name in sorted(names)]


def size_of(path: str) -> int | None:
    """Gives the size of a regular file in bytes; None if there is none of this name, or it is a link or a folder."""
    if is_remote(path):
        return next((file.size for file in match(path, hidden=True) if file.path == path), None)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def folder_names(folder: str, begin: str) -> list[str]:
    """Lists the folders in a folder whose names begin with `begin`, taken literally; links are none."""
    if is_remote(folder):
        found = (file.path[len(folder) :] for file in match(f"{folder}{begin}*/*", hidden=True))
        return sorted({name.partition("/")[0] for name in found})
    try:
        with os.scandir(folder or ".") as there:
            return sorted(e.name for e in there if e.name.startswith(begin) and e.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def updated(prefix: str) -> list[tuple[str, float]]:
    """Lists the files whose path begins with `prefix`: (path, last change in seconds since 1970, by their store)."""
    if not is_remote(prefix):
        return [(path, os.lstat(path).st_mtime) for path in glob.glob(glob.escape(prefix) + "*")]
    found = _matching(prefix + "*")
    return [(file.path, float(file.last_updated_in_seconds or 0)) for file in found]


def open_input(path: str, start: int = 0) -> IO[bytes]:
    """Opens the raw bytes of a file (never decompressed) at `start`."""
    if is_remote(path):
        from apache_beam.io.filesystem import CompressionTypes

        with in_words(path, "read"):
            file = file_systems(path).open(path, compression_type=CompressionTypes.UNCOMPRESSED)
            if start:
                file.seek(start)
            return cast(IO[bytes], file)
    local = open(path, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    if start:
        local.seek(start)
    return cast(IO[bytes], local)


def read_range(path: str, start: int, end: int) -> bytes:
    """Returns the bytes of a file from `start` to `end` (or to its end)."""
    with open_input(path, start) as file:
        return read_fully(file, end - start)


def read_fully(file: IO[bytes], count: int) -> bytes:
    """Reads `count` bytes, or what is left: a raw file may return less than it was asked for."""
    first = file.read(count)
    if len(first) == count or not first:
        return first
    pieces = io.BytesIO()
    pieces.write(first)
    while pieces.tell() < count and (piece := file.read(count - pieces.tell())):
        pieces.write(piece)
    return pieces.getvalue()


def open_output(path: str, mode: int = 0o666) -> IO[bytes]:
    """Creates a file (and, locally, its folder) for writing; locally also for reading.

    Args:
      path: of a file that is not there yet. What is there is never opened, links are never followed.
      mode: access rights of a local file, less those that the process's umask takes away.

    Raises:
      FileExistsError: there is something of this name.
    """
    if is_remote(path):
        from apache_beam.io.filesystem import CompressionTypes

        with in_words(path, "write"):
            created = file_systems(path).create(path, compression_type=CompressionTypes.UNCOMPRESSED)
            return cast(IO[bytes], created)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    return create(path, mode)


def create(path: str, mode: int = 0o666) -> IO[bytes]:
    """Creates a local file as `open_output` does, in a folder that is there."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "w+b")


def close_durably(file: IO[bytes]) -> int:
    """Closes a file that was written, so that it is on the disk; gives its size in bytes."""
    size = file.tell()
    try:
        number = file.fileno()
    except (AttributeError, OSError):  # an object of a store, durable once it is closed
        number = None
    if number is not None:
        file.flush()
        os.fsync(number)
    file.close()
    return size


def sync_folder(folder: str) -> None:
    """Makes durable which names are in a local folder."""
    if is_remote(folder):
        return
    number = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_whole(path: str, content: bytes) -> None:
    """Writes a small file that readers see whole, durable when this returns; replaces what was there."""
    if is_remote(path):
        with in_words(path, "write"), open_output(path) as remote:
            remote.write(content)
        return
    beside = f"{path}.{uuid.uuid4().hex[:8]}.new"
    file = create(beside)
    try:
        file.write(content)
        close_durably(file)
        os.replace(beside, path)
    except BaseException:
        file.close()
        delete([beside])
        raise
    sync_folder(os.path.dirname(path))


def remove_unfinished(path: str) -> None:
    """Removes what a killed process left of writing a local file with `write_whole`."""
    if is_remote(path):
        return
    folder, name = os.path.split(path)
    beside = re.compile(re.escape(name) + r"\.[0-9a-f]{8}\.new")
    unfinished = (entry for entry in entries(os.path.join(folder, ""), name) if beside.fullmatch(entry.name))
    delete([os.path.join(folder, entry.name) for entry in unfinished if entry.size is not None])


def read_small(path: str, limit: int) -> bytes | None:
    """Reads a regular file of at most `limit` bytes; None if there is none. Links are not followed.

    Raises:
      ValueError: it is larger, or it is a link or no file.
    """
    if is_remote(path):
        size = size_of(path)
        if size is None:
            return None
        if size > limit:
            raise ValueError(f"{path} has {size:,} bytes; at most {limit:,} are allowed")
        return read_range(path, 0, limit)
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError(f"{path} is a link; a regular file is needed") from None
        raise
    with os.fdopen(number, "rb", buffering=0) as file:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is not a regular file")
        if status.st_size > limit:
            raise ValueError(f"{path} has {status.st_size:,} bytes; at most {limit:,} are allowed")
        return read_fully(file, limit)


def rename(pairs: Sequence[tuple[str, str]]) -> None:
    """Moves files, (from, to); locally each in one atomic step that replaces what was there.

    Args:
      pairs: all on one file system; what is gone already is left out by the caller.
    """
    if pairs and is_remote(pairs[0][1]):
        first = pairs[0][1]
        with in_words(first, "write"):
            file_systems(first).rename([source for source, _ in pairs], [target for _, target in pairs])
        return
    for source, target in pairs:
        os.replace(source, target)


def delete(paths: Sequence[str]) -> None:
    """Deletes files; those that are gone already do not matter."""
    remote = [path for path in paths if is_remote(path)]
    if remote:
        with in_words(remote[0], "delete"):
            systems = file_systems(remote[0])
            systems.delete([path for path in remote if systems.exists(path)])
    for path in paths:
        if not is_remote(path):
            try:
                os.remove(path)
            except FileNotFoundError:
                pass


def real_folder(folder: str) -> str:
    """Gives one name to one local folder, however it is spelled: absolute, links followed, no slash at its end."""
    return folder.rstrip("/") if is_remote(folder) else os.path.realpath(folder or ".")
