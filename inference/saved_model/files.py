"""Finds a model's files: which version is meant, and a copy on this machine of what lies elsewhere."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any, cast

from inference.stores.errors import StoreError
from inference.stores.file_systems import file_systems
from inference.stores.kinds import is_remote
from inference.stores.meanings import in_words
from model import packaged
from model.errors import ModelFormatError, ModelNotFoundError
from model.other_formats import SAVED_MODEL_FILE, is_address, why_none
from model.signature import latest_version

LATEST = "latest"

_copies: dict[str, str] = {}
_lock = threading.Lock()


def resolve(path: str, version: str | None = None) -> str:
    """Returns the folder of the SavedModel that `path` and `version` mean.

    Args:
      path: the SavedModel's folder or, with `version`, the folder of its versions. A relative path that does
        not exist is looked for among the packaged files.
      version: the name of a version's folder, "latest" for the newest (`v10` is newer than `v9`), or None.

    Raises:
      ModelNotFoundError: there is no such folder or version.
    """
    path = packaged.located(path)
    if version is None:
        return path
    if is_address(path):
        raise ModelNotFoundError(why_none(path))
    folder = path.rstrip("/")
    names = _folder_names(folder)
    chosen = latest_version(names) if version == LATEST else version
    if chosen is None or chosen not in names:
        if not is_remote(folder) and os.path.exists(f"{folder}/{SAVED_MODEL_FILE}"):
            raise ModelNotFoundError(f"{folder} is a SavedModel, not a folder of versions; leave model.version out")
        found = ", ".join(sorted(names)) or "none"
        wanted = "numbered version (v1, v2, ...)" if version == LATEST else f"version '{version}'"
        raise ModelNotFoundError(f"{folder} has no {wanted}; its folders: {found}")
    return f"{folder}/{chosen}"


def _folder_names(folder: str) -> set[str]:
    if not is_remote(folder):
        if not os.path.isdir(folder):
            raise ModelNotFoundError(why_none(folder))
        return {entry.name for entry in os.scandir(folder) if entry.is_dir()}
    found = _files(folder)
    return {file.path[len(folder) + 1 :].split("/", 1)[0] for file in found if "/" in file.path[len(folder) + 1 :]}


def _files(folder: str) -> list[Any]:
    try:
        with in_words(folder, "list"):
            return list(file_systems(folder).match([f"{folder}/**"])[0].metadata_list)
    except StoreError as error:
        raise ModelNotFoundError(str(error)) from None


def read_bytes(path: str) -> bytes:
    """Returns a file of a model as bytes, on any file system. Raises FileNotFoundError."""
    if not is_remote(path):
        return Path(path).read_bytes()
    try:
        with in_words(path, "read"):
            if not file_systems(path).exists(path):
                raise FileNotFoundError(path)
            with _open_raw(path) as file:
                return cast(bytes, file.read())
    except StoreError as error:
        raise ModelFormatError(str(error)) from None


def _open_raw(path: str) -> Any:
    from apache_beam.io.filesystem import CompressionTypes

    return file_systems(path).open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def local_copy(path: str) -> str:
    """Returns the folder itself if it is local; else a copy of it, made once in this process and removed at its end."""
    if not is_remote(path):
        return resolve(path)
    with _lock:
        if path not in _copies:
            _copies[path] = _copy(path.rstrip("/"))
        return _copies[path]


def forget_copy(path: str) -> None:
    """Removes the copy of a remote folder, if there is one; what was loaded from it stays loaded."""
    with _lock:
        copy = _copies.pop(path, None)
    if copy is not None:
        shutil.rmtree(copy, ignore_errors=True)


def name(path: str) -> str:
    """Returns the name of a model's folder: its version, where that is how versions are kept."""
    return path.rstrip("/").rpartition("/")[2]


def _copy(folder: str) -> str:
    found = _files(folder)
    if not found:
        raise ModelNotFoundError(f"{folder}: no files there; check model.path")
    target = tempfile.mkdtemp(prefix="model-")
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    for file in found:
        relative = file.path[len(folder) + 1 :]
        local = os.path.normpath(os.path.join(target, relative))
        if not local.startswith(target + os.sep):
            raise ModelNotFoundError(f"{file.path}: not inside the model's folder")
        os.makedirs(os.path.dirname(local), exist_ok=True)
        with in_words(file.path, "read"), _open_raw(file.path) as source, open(local, "wb") as copy:
            shutil.copyfileobj(source, copy)
    return target
