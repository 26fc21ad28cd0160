"""Explains what an error of a store means: exceptions and HTTP's status codes, as one line for a person."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Literal

from inference.stores.errors import StoreError
from inference.stores.kinds import store_of
from model.secrets import masked

Deed = Literal["list", "read", "write", "delete"]

_NO_CREDENTIALS = {
    "CredentialRetrievalError", "DefaultCredentialsError", "NoCredentialsError", "PartialCredentialsError",
    "ProfileNotFound", "RefreshError", "SSOTokenLoadError", "TokenRetrievalError", "UnauthorizedSSOTokenError",
    "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken",
    "SignatureDoesNotMatch", "TokenRefreshRequired",
}  # fmt: skip
"""Classes of exceptions, and codes of S3."""
_AWAY = {
    "ConnectionError", "ConnectTimeout", "ConnectTimeoutError", "EndpointConnectionError", "HTTPClientError",
    "ConnectionClosedError", "ProxyConnectionError", "ReadTimeout", "ReadTimeoutError", "RetryError", "SSLError",
    "Timeout", "TimeoutError", "TransportError",
}  # fmt: skip
_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName", "ParamValidationError"}
_OTHER_REGION = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
_CODE_OF_S3 = re.compile(
    r"An error occurred \((\w+)\) when calling the \w+ operation(?: \(reached max retries: \d+\))?: "
)
_QUERY = re.compile(r"(?<=://)([^\s\"'?]+)\?[^\s\"']*")
_REASON = re.compile(r"\[Errno -?\d+\] ([A-Za-z ]+)")
_REQUEST = re.compile(r"^(\d{3} )?(GET|POST|PUT|DELETE|HEAD|PATCH) \S+: ")


@contextmanager
def in_words(path: str, deed: Deed) -> Iterator[None]:
    """Has what fails in the block raised as a StoreError that says what it means.

    Args:
      path: what the block is about.
      deed: what it does with it.

    Raises:
      FileNotFoundError: what was to be read is not there.
      StoreError: of any other error but FileExistsError and a StoreError, which stay.
    """
    try:
        yield
    except (FileExistsError, StoreError):
        raise
    except Exception as error:  # a file system's own errors, of any class
        if isinstance(error, FileNotFoundError) or (deed == "read" and _is_missing(_cause(error))):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
        raise StoreError(meaning(error, path, deed)) from error


def meaning(error: BaseException, path: str, deed: Deed, *, to_write: bool = False) -> str:
    """Returns what an error of a store means for a path, and what to do, on one line.

    Args:
      error: what was raised.
      path: what it is about.
      deed: what was to be done with it.
      to_write: whether files are to be written there later.
    """
    cause = _cause(error)
    code, kind, said = _status(cause), _kind(cause), masked(_said(cause))
    store = store_of(path)
    if store is None:
        return f"{path} cannot be {_DONE[deed]}: {said}"
    if kind in _NO_CREDENTIALS or code == HTTPStatus.UNAUTHORIZED:
        return f"{path}: {store.name} accepts no credentials of this process ({said}); {store.credentials}"
    if kind in _OTHER_REGION:
        return f"{path}: its bucket is in another region ({said}); set AWS_REGION to the bucket's"
    if kind in _NO_BUCKET or (code == HTTPStatus.NOT_FOUND and _is_bucket(said, deed)):
        bucket = path.partition("://")[2].partition("/")[0]
        return f"{path}: there is no bucket {bucket}; check the name, or create it"
    if kind in _AWAY:
        return f"{path}: {store.name} cannot be reached ({said}); check the network, and {store.address}"
    if code is not None and (code >= HTTPStatus.INTERNAL_SERVER_ERROR or code == HTTPStatus.TOO_MANY_REQUESTS):
        return f"{path}: {store.name} does not serve at present ({said}); run it again later"
    if "requester pays" in said.lower():
        return f"{path}: its bucket has requesters pay ({said}), which Beam cannot; copy the files to another bucket"
    if "billing" in said.lower():
        return (
            f"{path}: {store.name} refuses it ({said}); enable billing for the bucket's project, or use another bucket"
        )
    if code == HTTPStatus.FORBIDDEN:
        rights = store.to_write if to_write or deed in ("write", "delete") else store.to_read
        return f"{path} may not be {_DONE[deed]} ({said}); give the account {rights}, or use another one"
    if "project" in said.lower() and code == HTTPStatus.BAD_REQUEST:
        return f"{path}: {store.name} refuses the project ({said}); check --project and GOOGLE_CLOUD_PROJECT"
    return f"{path} cannot be {_DONE[deed]}: {store.name}: {said}"


_DONE: dict[Deed, str] = {"list": "listed", "read": "read", "write": "written", "delete": "deleted"}


def _is_bucket(said: str, deed: Deed) -> bool:
    """Tells whether what is not there is the bucket: a listing fails for nothing else."""
    return deed == "list" or "bucket does not exist" in said.lower()


def _is_missing(error: Any) -> bool:
    is_bucket = _kind(error) in _NO_BUCKET or _is_bucket(_said(error), "read")
    return _status(error) == HTTPStatus.NOT_FOUND and not is_bucket


def _cause(error: BaseException) -> Any:
    """Returns the error of the library in an error of Beam's, which holds one for each path, or a status code."""
    details = getattr(error, "exception_details", None)
    while isinstance(details, dict) and details:
        error = next(iter(details.values()))
        details = getattr(error, "exception_details", None)
    return error


def _status(error: Any) -> int | None:
    """Returns the status code that HTTP has for an error."""
    if isinstance(error, int):
        return error
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found: Any = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(error, "code", None)
    return int(found) if isinstance(found, int) else None


def _kind(error: Any) -> str:
    """Returns what kind of error it is: S3's code, or the name of its class."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and response.get("Error", {}).get("Code"):
        return str(response["Error"]["Code"])
    named = _CODE_OF_S3.search(str(error))
    return named[1] if named else type(error).__name__


def _said(error: Any) -> str:
    """Returns what a store said, without what was asked."""
    if isinstance(error, int):
        return _phrase(error)
    arguments: Any = getattr(error, "args", ())
    found = [getattr(error, "message", None), arguments[0] if len(arguments) > 1 else None, str(error)]
    text = next((each for each in found if isinstance(each, str) and each.strip()), type(error).__name__)
    if "Max retries exceeded" in text:
        # What urllib3 says of it has the address three times.
        reason = _REASON.search(text)
        return reason[1] if reason else "no connection"
    line = text.strip().splitlines()[0]
    line = _QUERY.sub(r"\1", _REQUEST.sub("", _CODE_OF_S3.sub("", line)))[:300].rstrip(".")
    code = _status(error)
    return line or (_phrase(code) if code else type(error).__name__)


def _phrase(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)
