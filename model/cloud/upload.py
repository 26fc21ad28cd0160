"""Copies the files of a SavedModel to Cloud Storage."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from model.cloud.api import ABSENT, PRESENT, Call
from model.cloud.credentials import GoogleAuth
from model.cloud.errors import ServiceError, SettingError
from model.other_formats import SAVED_MODEL_FILE
from model.secrets import masked
from model.signature import read_signatures
from model.specs import Signature

_BUCKET = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(.*))?", re.ASCII)
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """Describes one file of a SavedModel.

    Attributes:
      name: below the model's folder, with slashes.
      path: path on this machine.
      bytes: size in bytes.
      crc32c: of its content, as Cloud Storage writes it: base64.
    """

    name: str
    path: str
    bytes: int
    crc32c: str


@dataclass(frozen=True)
class ModelFolder:
    """Describes a SavedModel on this machine.

    Attributes:
      path: as it was named.
      files: the files, saved_model.pb last: a copy that is broken off is then none that could be loaded.
      sha256: of names and contents, hexadecimal.
      signatures: by name.
    """

    path: str
    files: tuple[ModelFile, ...]
    sha256: str
    signatures: dict[str, Signature]

    @property
    def bytes(self) -> int:
        """Returns the size of all files."""
        return sum(file.bytes for file in self.files)


def read_folder(path: str) -> ModelFolder:
    """Reads a SavedModel: its signatures, then each file once.

    Raises:
      ModelError: there is none that can be read.
      SettingError: it cannot be copied as it is, or has nothing to call.
    """
    if "://" in path:
        raise SettingError(f"--model {path} is not on this machine; copy it here first")
    signatures = read_signatures(path)
    if not signatures:
        raise SettingError(
            f"the model at {path} has no signatures; export it with tf.saved_model.save(..., signatures=)"
        )
    total = hashlib.sha256()
    files = []
    for name in sorted(_names(path)):
        file, digest = _read(name, os.path.join(path, *name.split("/")))
        files.append(file)
        total.update(f"{digest} {name}\n".encode())
    files.sort(key=lambda file: file.name == SAVED_MODEL_FILE)
    return ModelFolder(path, tuple(files), total.hexdigest(), signatures)


def _names(path: str) -> Iterator[str]:
    for folder, folders, names in os.walk(path, onerror=_unreadable):
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                raise SettingError(f"{os.path.join(folder, name)} is a link to a folder; put the folder there")
        for name in names:
            relative = os.path.relpath(os.path.join(folder, name), path).replace(os.sep, "/")
            if not relative.isprintable():
                raise SettingError(f"the model at {path} has a file whose name cannot be an object's: {relative!r}")
            yield relative


def _unreadable(error: OSError) -> None:
    raise SettingError(f"{error.filename} cannot be read: {error.strerror}")


def _read(name: str, path: str) -> tuple[ModelFile, str]:
    import google_crc32c

    size, crc, sha = 0, google_crc32c.Checksum(), hashlib.sha256()
    try:
        # A pipe would be waited for.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SettingError(f"{path} is not a regular file; export or copy the model again")
        with open(path, "rb") as stream:
            while block := stream.read(_CHUNK):
                size += len(block)
                crc.update(block)
                sha.update(block)
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}") from None
    return ModelFile(name, path, size, base64.b64encode(crc.digest()).decode()), sha.hexdigest()


def artifact_uri(bucket: str, name: str, version: str, sha256: str) -> str:
    """Returns where a model's files go: `<bucket>/<name>/<version>-<hash8>`.

    Raises:
      SettingError: the bucket is not gs://bucket or gs://bucket/prefix.
    """
    match = _BUCKET.fullmatch(bucket)
    prefix = (match[2] or "").strip("/") if match else ""
    if match is None or not prefix.isprintable() or "//" in prefix or ".." in prefix.split("/"):
        raise SettingError(f"--bucket {bucket} is not one; it looks like gs://bucket or gs://bucket/prefix")
    return "/".join(part for part in (f"gs://{match[1]}", prefix, name, f"{version}-{sha256[:8]}") if part)


class Storage(ABC):
    """Stores the files of models."""

    @abstractmethod
    def upload(self, model: ModelFolder, uri: str) -> int:
        """Uploads what is not there; returns the number of files uploaded. Raises DeploymentError."""

    @abstractmethod
    def delete(self, model: ModelFolder, uri: str) -> int:
        """Deletes the model's files; returns how many there were. Raises DeploymentError."""


class DryStorage(Storage):
    """Writes down what would be done."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls

    def upload(self, model: ModelFolder, uri: str) -> int:
        for file in model.files:
            note = f"{file.bytes:,} bytes from {file.path}"
            self._calls.append(Call("UPLOAD", f"{uri}/{file.name}", None, ABSENT, note))
        return len(model.files)

    def delete(self, model: ModelFolder, uri: str) -> int:
        self._calls.extend(Call("DELETE", f"{uri}/{file.name}", None, PRESENT) for file in reversed(model.files))
        return len(model.files)


class CloudStorage(Storage):
    """Stores files in Google Cloud Storage, or in the emulator that STORAGE_EMULATOR_HOST names.

    Args:
      project: whose it is.
      auth: credentials, looked for at the first call.
      tell: takes the lines of progress.
    """

    def __init__(self, project: str, auth: GoogleAuth, tell: Callable[[str], None]) -> None:
        self._project, self._auth, self._tell = project, auth, tell

    def upload(self, model: ModelFolder, uri: str) -> int:
        uploaded = 0
        with _explained(uri):
            bucket, folder, there = self._open(uri)
            for file in model.files:
                old = there.get(f"{folder}/{file.name}")
                if old is not None and old.size == file.bytes and old.crc32c == file.crc32c:
                    continue
                self._tell(f"uploading {file.name} ({file.bytes:,} bytes)")
                new = bucket.blob(f"{folder}/{file.name}")
                new.upload_from_filename(file.path, content_type="application/octet-stream", checksum="crc32c")
                if new.crc32c and new.crc32c != file.crc32c:
                    raise SettingError(f"{file.path} changed while it was uploaded; run the command again")
                uploaded += 1
        return uploaded

    def delete(self, model: ModelFolder, uri: str) -> int:
        from google.api_core.exceptions import NotFound

        deleted = 0
        with _explained(uri):
            _, folder, there = self._open(uri)
            for file in reversed(model.files):
                blob = there.get(f"{folder}/{file.name}")
                if blob is None:
                    continue
                try:
                    blob.delete()
                    deleted += 1
                except NotFound:
                    pass
        return deleted

    def _open(self, uri: str) -> tuple[Any, str, dict[str, Any]]:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage  # type: ignore[attr-defined]

        emulated = bool(os.environ.get("STORAGE_EMULATOR_HOST"))
        credentials = AnonymousCredentials() if emulated else self._auth.credentials()  # type: ignore[no-untyped-call]
        client = storage.Client(project=self._project, credentials=credentials)
        name, _, folder = uri.removeprefix("gs://").partition("/")
        there = {blob.name: blob for blob in client.list_blobs(name, prefix=f"{folder}/")}
        return client.bucket(name), folder, there


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    import requests
    from google.api_core.exceptions import GoogleAPIError, NotFound
    from google.auth.exceptions import GoogleAuthError

    bucket = uri.removeprefix("gs://").partition("/")[0]
    try:
        yield
    except NotFound:
        raise SettingError(
            f"there is no bucket gs://{bucket}; create it with: gcloud storage buckets create gs://{bucket}"
        ) from None
    except GoogleAPIError as error:
        message = " ".join(masked(str(getattr(error, "message", "") or error)).split())[:500]
        raise ServiceError(f"gs://{bucket}: {message}", getattr(error, "code", None)) from None
    except (GoogleAuthError, requests.RequestException) as error:
        raise ServiceError(f"gs://{bucket}: {type(error).__name__}: Cloud Storage cannot be reached") from None
