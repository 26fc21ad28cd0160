"""Files on any path: local ones with the standard library, all others through Beam's FileSystems.

Beam is imported only for a path that has a scheme, so that local checks answer at once.
"""

from __future__ import annotations

import errno
import glob
import io
import os
import re
import shutil
from dataclasses import dataclass
from typing import IO, Any, cast

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")


@dataclass(frozen=True)
class FileInfo:
    """A file that a pattern matched.

    Attributes:
      path: full path.
      size: bytes.
      modified: when it was last written, in ns since 1970; 0 where the file system does not say.
    """

    path: str
    size: int
    modified: int = 0


def is_remote(path: str) -> bool:
    """Whether `path` needs a Beam file system (it has a scheme such as gs://)."""
    return bool(_SCHEME.match(path))


def _filesystems() -> Any:
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


def match(pattern: str, *, hidden: bool = False) -> list[FileInfo]:
    """Files that match a path or glob, sorted by path. A folder means the files in it.

    Local names that begin with a dot or an underscore are left out, unless `hidden` or named in full.
    """
    if is_remote(pattern):
        wanted = pattern + "*" if pattern.endswith("/") else pattern
        found = _filesystems().match([wanted])[0].metadata_list
        return sorted((_remote_info(f) for f in found), key=lambda f: f.path)
    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "*")
    named = os.path.isfile(pattern)
    paths = [pattern] if named else glob.glob(pattern, recursive=True)
    return [
        _local_info(path)
        for path in sorted(paths)
        if os.path.isfile(path) and (hidden or named or not os.path.basename(path).startswith((".", "_")))
    ]


def describe(path: str) -> FileInfo:
    """Looks at one file, whose path is taken literally. Raises FileNotFoundError."""
    if not is_remote(path):
        return _local_info(path)
    filesystems = _filesystems()
    try:
        return _remote_info(filesystems.get_filesystem(path).metadata(path))
    except Exception:  # a file system's own errors, of any class
        if filesystems.exists(path):
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None


def _local_info(path: str) -> FileInfo:
    found = os.stat(path)
    return FileInfo(path, found.st_size, found.st_mtime_ns)


def _remote_info(found: Any) -> FileInfo:
    return FileInfo(found.path, found.size_in_bytes, int((found.last_updated_in_seconds or 0) * 1e9))


def match_prefix(prefix: str) -> list[FileInfo]:
    """Files whose path begins with `prefix`, taken literally, sorted by path."""
    return match((prefix if is_remote(prefix) else glob.escape(prefix)) + "*", hidden=True)


def folders(prefix: str, suffix: str) -> list[str]:
    """Folders whose path begins with `prefix` and ends with `suffix`, each with a slash at its end."""
    if is_remote(prefix):
        found = {file.path.partition(suffix + "/")[0] + suffix for file in match(f"{prefix}*{suffix}/*")}
        return sorted(folder + "/" for folder in found)
    return [path + "/" for path in sorted(glob.glob(f"{glob.escape(prefix)}*{suffix}")) if os.path.isdir(path)]


def open_input(path: str, start: int = 0) -> IO[bytes]:
    """Opens the raw bytes of a file (never decompressed) at `start`."""
    if is_remote(path):
        from apache_beam.io.filesystem import CompressionTypes

        file = _filesystems().open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        if start:
            file.seek(start)
        return cast(IO[bytes], file)
    local = open(path, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    if start:
        local.seek(start)
    return cast(IO[bytes], local)


def read_range(path: str, start: int, end: int) -> bytes:
    """The bytes of a file from `start` to `end` (or to its end)."""
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


def open_output(path: str) -> IO[bytes]:
    """Creates a file (and, locally, its folder) for writing."""
    if is_remote(path):
        from apache_beam.io.filesystem import CompressionTypes

        created = _filesystems().create(path, compression_type=CompressionTypes.UNCOMPRESSED)
        return cast(IO[bytes], created)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    return open(path, "wb")


def rename(source: str, target: str) -> None:
    """Moves a file; locally in one atomic step that replaces the target."""
    if is_remote(target):
        _filesystems().rename([source], [target])
        return
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    os.replace(source, target)


def delete(paths: list[str]) -> None:
    """Deletes files; those that are gone already do not matter."""
    remote = [path for path in paths if is_remote(path)]
    if remote:
        filesystems = _filesystems()
        filesystems.delete([path for path in remote if filesystems.exists(path)])
    for path in paths:
        if not is_remote(path):
            try:
                os.remove(path)
            except FileNotFoundError:
                pass


def delete_folder(path: str) -> None:
    """Deletes a folder (or the objects under a prefix) with all that is in it."""
    if is_remote(path):
        delete([file.path for file in match(path.rstrip("/") + "/")])
    else:
        shutil.rmtree(path, ignore_errors=True)
