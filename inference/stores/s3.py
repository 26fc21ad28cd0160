"""Repairs of Beam's file system for S3.

| Beam 2.77 | here |
|---|---|
| makes a client of boto3, which looks for credentials, for each operation | one a process |
| cannot write an empty file: S3 refuses an upload of no parts | writes it |
| uploads a file of any size in parts, by three requests | one request for a small file |
| leaves the parts of an upload that failed, which are billed | removes them |
| repeats requests for minutes if there are no credentials | says so at once |
"""

from __future__ import annotations

import os
import threading
from typing import Any

from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3 import boto3_client, messages
from apache_beam.options.pipeline_options import PipelineOptions, S3Options
from botocore import exceptions as botocore

_PART_BYTES = 16 << 20
"""Bytes of a part; S3 takes at most 10,000 of them, so files of at most 156 GiB."""
_CONNECTIONS = 64
_NO_CREDENTIALS = (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.CredentialRetrievalError,
    botocore.SSOError,
    botocore.UnauthorizedSSOTokenError,
)
_WRONG = (botocore.ParamValidationError, botocore.NoRegionError, botocore.InvalidRegionError)
_SETTINGS = (
    "s3_access_key_id", "s3_secret_access_key", "s3_session_token", "s3_endpoint_url", "s3_region_name",
    "s3_api_version", "s3_verify", "s3_disable_ssl",
)  # fmt: skip

_clients: dict[object, Any] = {}
_lock = threading.Lock()
_status_of = boto3_client.get_http_error_code


def repair() -> None:
    """Has Beam use what is in this module. May be called again."""
    boto3_client.Client = _SharingClient
    boto3_client.get_http_error_code = _status
    s3io.S3Uploader = _Uploader


def client_for(options: Any, **config: Any) -> Any:
    """Returns boto3's client for S3 with Beam's options; the same for the same options and variables.

    Args:
      options: of Beam, as its file systems get them.
      config: further settings of botocore's.
    """
    settings = _settings(options)
    # In another process the connections of this one are not to be used.
    variables = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    key = (os.getpid(), tuple(settings.items()), variables, repr(sorted(config.items())))
    with _lock:
        if key not in _clients:
            _clients[key] = _made(settings, config)
        return _clients[key]


def _settings(options: Any) -> dict[str, Any]:
    if isinstance(options, PipelineOptions):
        view = options.view_as(S3Options)
        return {name: getattr(view, name) or None for name in _SETTINGS}
    return {name: (options or {}).get(name) or None for name in _SETTINGS}


def _made(settings: dict[str, Any], config: dict[str, Any]) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        region_name=settings["s3_region_name"],
        api_version=settings["s3_api_version"],
        use_ssl=not settings["s3_disable_ssl"],
        verify=settings["s3_verify"],
        endpoint_url=settings["s3_endpoint_url"],
        aws_access_key_id=settings["s3_access_key_id"],
        aws_secret_access_key=settings["s3_secret_access_key"],
        aws_session_token=settings["s3_session_token"],
        config=Config(max_pool_connections=_CONNECTIONS, **config),
    )


def _status(error: BaseException) -> int | None:
    """Returns the status code of an error; Beam repeats a request whose error has none, for minutes."""
    if isinstance(error, _NO_CREDENTIALS):
        return 401
    found = _status_of(error)
    if found is None and isinstance(error, _WRONG):
        return 400
    return int(found) if found is not None else None


class _SharingClient(boto3_client.Client):  # type: ignore[misc]
    """Beam's client around the one of boto3 that the process has."""

    def __init__(self, options: Any) -> None:
        self.client = client_for(options)
        self._download_request = None
        self._download_stream = None
        self._download_pos = 0


class _Uploader(s3io.S3Uploader):  # type: ignore[misc]
    """Uploads a file: a small one with one request, a large one in parts, which are gone if it fails."""

    upload_id: str | None

    def _start_upload(self) -> None:
        self._waiting = bytearray()

    def put(self, data: memoryview) -> None:
        self._waiting += data
        while len(self._waiting) >= _PART_BYTES:
            part = bytes(self._waiting[:_PART_BYTES])
            del self._waiting[:_PART_BYTES]
            self._upload(part)

    def _upload(self, part: bytes) -> None:
        try:
            if self.upload_id is None:
                request = messages.UploadRequest(self._bucket, self._name, self._mime_type)
                self.upload_id = self._client.create_multipart_upload(request).upload_id
            self._write_to_s3(part)
        except BaseException as error:
            self.last_error = error
            self._give_up()
            raise

    def finish(self) -> None:
        if self.last_error is not None:
            raise self.last_error
        if self.upload_id is None:
            self._put_whole(bytes(self._waiting))
            return
        if self._waiting:
            self._upload(bytes(self._waiting))
        try:
            self._client.complete_multipart_upload(
                messages.CompleteMultipartUploadRequest(self._bucket, self._name, self.upload_id, self.parts)
            )
        except BaseException:
            self._give_up()
            raise

    def _put_whole(self, content: bytes) -> None:
        try:
            self._client.client.put_object(
                Bucket=self._bucket, Key=self._name, Body=content, ContentType=self._mime_type
            )
        except Exception as error:
            raise messages.S3ClientError(str(error), boto3_client.get_http_error_code(error)) from error

    def _give_up(self) -> None:
        """Removes the parts that were uploaded, if S3 lets us."""
        if self.upload_id is None:
            return
        try:
            self._client.client.abort_multipart_upload(Bucket=self._bucket, Key=self._name, UploadId=self.upload_id)
        except Exception:
            return
