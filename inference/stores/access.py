"""Asks a store, before anything else does, whether it lets this process see a path: an answer within seconds.

Beam's file systems repeat requests for minutes where there are no credentials or no connection, and take a bucket of S3
that is not there for an empty one.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from inference.stores.errors import StoreError
from inference.stores.file_systems import file_systems
from inference.stores.kinds import require, scheme_of, store_of
from inference.stores.meanings import meaning
from model.secrets import keep

ANSWER_WITHIN_S = 15.0
_CONNECT_S, _READ_S = 4, 6
_EMULATOR, _CREDENTIALS = "STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_MAGIC = re.compile(r"[*?[]")


def check_access(path: str, *, to_write: bool = False) -> None:
    """Makes sure that a store lets this process see what is at a path; whether anything is there does not matter.

    Args:
      path: of a file, a folder, a prefix, or a pattern.
      to_write: whether files are to be written there later; what is said then names the rights for that.

    Raises:
      StoreError: it does not, or does not answer.
    """
    require(path)
    ask = {"gs": _ask_cloud_storage, "s3": _ask_s3}.get(scheme_of(path))
    if ask is None:
        return
    begin = _MAGIC.split(path, maxsplit=1)[0]
    bucket, _, name = begin.partition("://")[2].partition("/")
    if not bucket:
        raise StoreError(f"{path}: names no bucket; give {scheme_of(path)}://<bucket>/<name>")
    # What takes long to import is imported before the clock starts.
    file_systems(path)
    error = _within_seconds(path, lambda: ask(bucket, name))
    if error is None:
        return
    if isinstance(error, StoreError):
        raise error
    raise StoreError(meaning(error, path, "list", to_write=to_write)) from error


def _within_seconds(path: str, ask: Callable[[], None]) -> Exception | None:
    """Returns what a question has raised."""
    found: list[Exception | None] = []

    def run() -> None:
        try:
            ask()
            found.append(None)
        except Exception as error:  # of the store's library, of HTTP, of credentials
            found.append(error)

    thread = threading.Thread(target=run, name="store check", daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN_S)
    store = store_of(path)
    assert store is not None
    if found:
        return found[0]
    return StoreError(f"{path}: {store.name} does not answer; check the network, and {store.address}")


def _ask_s3(bucket: str, name: str) -> None:
    from botocore.exceptions import ClientError

    from inference.stores.s3 import client_for

    for variable in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if value := os.environ.get(variable):
            keep(value)
    options = file_systems(f"s3://{bucket}")._pipeline_options
    config = {"connect_timeout": _CONNECT_S, "read_timeout": _READ_S, "retries": {"total_max_attempts": 2}}
    client = client_for(options, **config)
    try:
        client.list_objects_v2(Bucket=bucket, Prefix=name, MaxKeys=1)
    except ClientError as refused:
        _or_else(refused, name, lambda: client.head_object(Bucket=bucket, Key=name))


def _ask_cloud_storage(bucket: str, name: str) -> None:
    from google.api_core.exceptions import Forbidden, Unauthorized
    from google.auth.exceptions import DefaultCredentialsError, InvalidOperation

    client, missing = _cloud_storage_client(os.environ.get(_EMULATOR), os.environ.get(_CREDENTIALS))
    timeout = (_CONNECT_S, _READ_S)
    try:
        try:
            list(client.list_blobs(bucket, prefix=name, max_results=1, retry=None, timeout=timeout))
        except (Forbidden, Unauthorized) as refused:
            _or_else(refused, name, lambda: client.bucket(bucket).blob(name).reload(retry=None, timeout=timeout))
    except InvalidOperation:
        # The client of nobody was told that somebody is needed.
        raise missing or DefaultCredentialsError("none were found") from None
    except (Forbidden, Unauthorized):
        if missing is not None:
            raise missing from None
        raise


def _or_else(refused: Exception, name: str, ask: Callable[[], object]) -> None:
    """Is content with a file that may be read, where a listing is refused."""
    try:
        if not name or name.endswith("/"):
            raise refused
        ask()
    except Exception:
        raise refused from None


@cache
def _cloud_storage_client(emulator: str | None, key_file: str | None) -> tuple[Any, Exception | None]:
    """Returns a client with the credentials of this machine, and why it has none: public files need none.

    Raises:
      DefaultCredentialsError: the key file that is named is not one.
    """
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage  # type: ignore[attr-defined]

    missing: Exception | None = None
    credentials: Any = AnonymousCredentials()
    if not emulator or key_file:
        # Else the search takes long where there is no metadata server.
        os.environ.setdefault("GCE_METADATA_TIMEOUT", "1")
        try:
            credentials, _ = google.auth.default(scopes=[_SCOPE])
        except DefaultCredentialsError as error:
            if key_file:
                raise
            missing = error
    return storage.Client(project=os.environ.get("GOOGLE_CLOUD_PROJECT", "none"), credentials=credentials), missing
