"""Loads Parquet files by one load job, run once however often it is requested.

The id of the job is made of the run's, so a later request finds the job that is there. A job that failed has loaded
nothing; its place is taken by the next attempt, with an id of its own.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow.parquet as pq

from pipelines import storage
from pipelines.connectors.bigquery.settings import DeliverySettings
from pipelines.connectors.bigquery.tables import make_client
from pipelines.connectors.files.publishing import shards
from pipelines.connectors.files.publishing.delivery import DeliveryError, DeliveryOrder, DeliveryRefusedError

_LOG = logging.getLogger(__name__)
_TRIES = 4
_PASSING = {
    "backendError", "internalError", "jobBackendError", "jobInternalError", "jobRateLimitExceeded", "rateLimitExceeded",
    "tableUnavailable", "timeout",
}  # fmt: skip
"""Reasons of failed jobs that pass by themselves."""
_AGAIN_AFTER_S = 2.0
_WRITES = {"append": "WRITE_APPEND", "truncate": "WRITE_TRUNCATE", "fail_if_exists": "WRITE_EMPTY"}
_POLL_S = 0.5


def load(order: DeliveryOrder, settings: DeliverySettings, folder: str) -> int:
    """Loads shards, unless they have been loaded; returns the rows that the job has written.

    Args:
      order: what to load.
      settings: where to, and how.
      folder: the folder of the shards; ends in a slash.

    Raises:
      DeliveryRefusedError: BigQuery refuses them; nothing was loaded.
      DeliveryError: it does not answer.
    """
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    target = settings.target
    try:
        with make_client(target.project) as client:
            return _run(client, order, settings, folder)
    except GoogleAPICallError as error:
        if 400 <= (error.code or 0) < 500 and error.code not in (408, 409, 429):
            raise DeliveryRefusedError(f"{order.what}: BigQuery refuses to load: {_line(error.message)}") from None
        raise DeliveryError(_away(order, error)) from None
    except (RetryError, GoogleAuthError, RequestException, ConnectionError) as error:
        raise DeliveryError(_away(order, error)) from None


def job_id(order: DeliveryOrder, attempt: int) -> str:
    """Returns the id of a job.

    >>> order = DeliveryOrder(service="bigquery", what="", fingerprint="f" * 32, settings={}, run="01234567", name="a")
    >>> job_id(order, 0)
    'a-01234567-ffffffffffffffff-0'
    """
    return f"{order.name}-{order.run}-{order.fingerprint[:16]}-{attempt}"


def _run(client: Any, order: DeliveryOrder, settings: DeliverySettings, folder: str) -> int:
    target = settings.target
    location = client.get_dataset(f"{target.project}.{target.dataset}").location
    attempt = tries = 0
    while True:
        name = job_id(order, attempt)
        job = _find(client, name, location)
        was_there = job is not None
        if job is None:
            job = _start(client, name, location, order, settings, folder)
        while not job.done():
            time.sleep(_POLL_S)
        if job.error_result is None:
            return int(job.output_rows or 0)
        reason, message = job.error_result.get("reason", ""), _said(job)
        attempt += 1
        if was_there:
            continue
        tries += 1
        if reason not in _PASSING:
            raise DeliveryRefusedError(f"{order.what}: load job {name} failed, nothing was loaded: {message}")
        if tries == _TRIES:
            raise DeliveryError(f"{order.what}: load job {name} failed for the {tries}th time: {message}")
        _LOG.warning("%s: load job %s failed, trying again: %s", order.what, name, message)
        time.sleep(_AGAIN_AFTER_S * tries)


def _find(client: Any, name: str, location: str | None) -> Any:
    from google.api_core.exceptions import NotFound

    try:
        return client.get_job(name, location=location)
    except NotFound:
        return None


def _start(
    client: Any, name: str, location: str | None, order: DeliveryOrder, settings: DeliverySettings, folder: str
) -> Any:
    """Starts a job, or finds it where the answer to an earlier request was lost."""
    from google.api_core.exceptions import Conflict, GoogleAPICallError

    config = _config(client, settings)
    paths = [folder + shard.name for shard in order.shards]
    try:
        if storage.is_remote(folder):
            return client.load_table_from_uri(
                paths, str(settings.target), job_id=name, location=location, job_config=config
            )
        path = paths[0] if len(paths) == 1 else _merged(paths, folder)
        with open(path, "rb") as file:
            return client.load_table_from_file(
                file,
                str(settings.target),
                job_id=name,
                location=location,
                job_config=config,
            )
    except (Conflict, GoogleAPICallError, ConnectionError):
        found = _find(client, name, location)
        if found is None:
            raise
        return found


def _config(client: Any, settings: DeliverySettings) -> Any:
    from google.api_core.exceptions import NotFound
    from google.cloud.bigquery import LoadJobConfig
    from google.cloud.bigquery.format_options import ParquetOptions

    config = LoadJobConfig(
        source_format="PARQUET",
        write_disposition=_WRITES[settings.write],
        create_disposition="CREATE_IF_NEEDED" if settings.create else "CREATE_NEVER",
    )
    # Lists become repeated columns, and not records of records.
    config.parquet_options = ParquetOptions()
    config.parquet_options.enable_list_inference = True
    try:
        config.schema = client.get_table(str(settings.target)).schema
    except NotFound:
        config.schema = settings.fields
        settings.lay_out(config)
    return config


def _merged(paths: Sequence[str], folder: str) -> str:
    """Makes one file of several, as an upload takes one; row groups are copied one by one."""
    path = f"{folder}{uuid.uuid4().hex}.parquet"
    with ExitStack() as stack:
        writer = None
        for each in paths:
            file = stack.enter_context(pq.ParquetFile(each))
            if writer is None:
                made = stack.enter_context(shards.create(path))
                writer = stack.enter_context(pq.ParquetWriter(made, file.schema_arrow, compression="zstd"))
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group))
    return path


def _said(job: Any) -> str:
    found = [job.error_result, *(job.errors or [])]
    return "; ".join(dict.fromkeys(_line(each.get("message", "")) for each in found))[:600]


def _line(text: object) -> str:
    return " ".join(str(text).split())[:400]


def _away(order: DeliveryOrder, error: Exception) -> str:
    return (
        f"{order.what}: BigQuery has not answered whether the rows are loaded: {type(error).__name__}: {_line(error)}; "
        "run the same command again, which finds out, and loads them if they are not"
    )
