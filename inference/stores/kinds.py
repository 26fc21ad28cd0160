"""Lists the kinds of stores whose paths have a scheme, and what a person has to know of each."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass

from inference.stores.errors import StoreError


@dataclass(frozen=True)
class StoreKind:
    """Describes a kind of store.

    Attributes:
      name: as its maker writes it.
      package: what its file system imports.
      extra: of this project, which installs the package; empty if the project needs it anyway.
      to_read: what an account needs for reading.
      to_write: what an account needs for writing.
      credentials: how a person gets credentials.
      address: what says where the store is.
    """

    name: str
    package: str
    extra: str
    to_read: str
    to_write: str
    credentials: str
    address: str


_STORES = {
    "gs": StoreKind(
        "Cloud Storage",
        "google.cloud.storage",
        "",
        "the role Storage Object Viewer on the bucket",
        "the role Storage Object User on the bucket",
        "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to a key file",
        "STORAGE_EMULATOR_HOST",
    ),
    "s3": StoreKind(
        "S3",
        "boto3",
        "aws",
        "s3:GetObject and s3:ListBucket",
        "s3:PutObject, s3:GetObject, s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucket",
        "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws sso login",
        "AWS_ENDPOINT_URL, AWS_REGION",
    ),
    "azfs": StoreKind(
        "Azure Blob Storage",
        "azure.storage.blob",
        "azure",
        "the role Storage Blob Data Reader",
        "the role Storage Blob Data Contributor",
        "set AZURE_STORAGE_CONNECTION_STRING, or run az login",
        "--blob_service_endpoint",
    ),
}
_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")
_OTHERS = ("hdfs",)
"""Schemes of Beam's file systems that this project does not know more of."""


def is_remote(path: str) -> bool:
    """Tells whether the path has a scheme such as gs://."""
    return bool(_SCHEME.match(path))


def scheme_of(path: str) -> str:
    """Returns the scheme of a path, in small letters; empty for a local one.

    >>> scheme_of("S3://bucket/a"), scheme_of("a/b.csv")
    ('s3', '')
    """
    return path.partition("://")[0].lower() if is_remote(path) else ""


def store_of(path: str) -> StoreKind | None:
    """Returns the kind of store that a path is in; None for a scheme of which no more is known than Beam knows."""
    return _STORES.get(scheme_of(path))


def require(path: str) -> None:
    """Makes sure that there is a file system for a path.

    Raises:
      StoreError: its scheme is not known or has capital letters, or its package is not installed.
    """
    store, scheme = store_of(path), scheme_of(path)
    if not path.startswith(scheme):
        raise StoreError(f"{path}: write {scheme}:// in small letters")
    if store is None:
        if scheme not in _OTHERS:
            known = ", ".join(f"{each}://" for each in _STORES)
            raise StoreError(f"{path}: there is no file system for {scheme}://; give a local path, or one of {known}")
        return
    if not _is_installed(store.package):
        raise StoreError(
            f"{path}: {scheme}:// needs packages that are not installed: pip install 'beam-tf-predict[{store.extra}]'"
        )


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
