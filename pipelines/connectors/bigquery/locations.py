"""Compares where a bucket is with where a dataset is: a load job reads only from buckets near the dataset."""

from __future__ import annotations

import os
from typing import Any

from pipelines.config.errors import ConfigError
from pipelines.connectors.preflight import answer_of

_EMULATOR = "STORAGE_EMULATOR_HOST"
_DUAL = {
    "ASIA1": ("ASIA-NORTHEAST1", "ASIA-NORTHEAST2"),
    "EUR4": ("EUROPE-NORTH1", "EUROPE-WEST4"),
    "EUR5": ("EUROPE-WEST1", "EUROPE-WEST2"),
    "EUR7": ("EUROPE-WEST2", "EUROPE-WEST3"),
    "EUR8": ("EUROPE-WEST3", "EUROPE-WEST6"),
    "NAM4": ("US-CENTRAL1", "US-EAST1"),
}
_MULTI = {"EU": "EUROPE-", "US": "US-", "ASIA": "ASIA-"}


def problems(path: str, dataset: str, location: str) -> list[str]:
    """Lists what is wrong with the bucket of a staging folder, one line each.

    Args:
      path: of the folder, gs://.
      dataset: its name, for the message.
      location: where it is.

    Raises:
      ConfigError: Cloud Storage does not answer, or not to us.
    """
    bucket = path.removeprefix("gs://").partition("/")[0]
    found = answer_of("output.staging", "Cloud Storage", _EMULATOR, lambda: _bucket(bucket))
    if found is None:
        return [f"output.staging: there is no bucket {bucket}; check the name, or create it in {location}"]
    place, parts = found
    if is_near(place, parts, location):
        return []
    return [
        f"output.staging: the bucket {bucket} is in {place}, and the dataset {dataset} in {location}: BigQuery loads "
        f"from buckets in {location} only; choose such a bucket, or a local folder"
    ]


def of_bucket(bucket: str, where: str, *, strict: bool = False) -> tuple[str, tuple[str, ...]]:
    """Returns the location of a bucket, empty where the account may not ask for it, and the regions of one in two.

    Args:
      bucket: name of the bucket.
      where: the config's path, or the flag, that names it.
      strict: whether an account that may not ask for it is refused.

    Raises:
      ConfigError: it is not there, or Cloud Storage does not answer, or not to us.
    """
    found = answer_of(where, "Cloud Storage", _EMULATOR, lambda: _bucket(bucket, strict))
    if found is None:
        raise ConfigError([f"{where}: there is no bucket {bucket}; check the name, or create it"])
    return found


def serves(bucket: str, parts: tuple[str, ...], region: str) -> bool:
    """Tells whether a bucket has its objects in a region.

    >>> serves("EU", (), "europe-west1"), serves("US-EAST1", (), "us-central1"), serves("NAM4", (), "us-central1")
    (True, False, True)

    Args:
      bucket: location of the bucket.
      parts: regions of a bucket in two of them.
      region: the region.
    """
    bucket, region = bucket.upper(), region.upper()
    within = {part.upper() for part in parts or _DUAL.get(bucket, ())}
    return not bucket or bucket == region or region in within or region.startswith(_MULTI.get(bucket, "-"))


def is_near(bucket: str, parts: tuple[str, ...], dataset: str) -> bool:
    """Tells whether a load job into a dataset may read from a bucket.

    >>> is_near("EUROPE-WEST1", (), "EU"), is_near("EU", (), "europe-west1"), is_near("US-EAST1", (), "europe-west1")
    (True, True, False)

    Args:
      bucket: location of the bucket.
      parts: regions of a bucket in two of them.
      dataset: location of the dataset.
    """
    bucket, dataset = bucket.upper(), dataset.upper()
    if not bucket or not dataset or dataset == "US" or bucket == dataset:
        return True
    within = {part.upper() for part in parts or _DUAL.get(bucket, ())}
    begin = _MULTI.get(dataset)
    if begin is not None:
        return bucket.startswith(begin) or (bool(within) and all(part.startswith(begin) for part in within))
    return dataset in within or (bucket in _MULTI and dataset.startswith(_MULTI[bucket]))


def _bucket(name: str, strict: bool = False) -> tuple[str, tuple[str, ...]] | None:
    """Returns the location of a bucket, and the regions of one in two; None if there is none.

    The location is empty where the account may not ask for it, as rights to read and write objects do not contain that;
    with `strict` such an account is an error.
    """
    from google.api_core.exceptions import Forbidden, NotFound

    try:
        with _client() as client:
            found = client.get_bucket(name, retry=None, timeout=7)
            return str(found.location or ""), tuple(found.data_locations or ())
    except Forbidden:
        if strict:
            raise
        return "", ()
    except NotFound:
        return None


def _client() -> Any:
    from google.cloud import storage  # type: ignore[attr-defined]

    if os.environ.get(_EMULATOR):
        from google.auth.credentials import AnonymousCredentials

        return storage.Client(project="emulator", credentials=AnonymousCredentials())
    return storage.Client()
