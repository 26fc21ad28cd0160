"""Runs S3 on loopback: moto's server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.servers.tools import free_ports
from tests.support import processes
from tests.support.bucket import Bucket, wait_for


class S3Emulator(Bucket):
    """S3 with one bucket.

    Attributes:
      client: of boto3, with the rights of the bucket's owner.
    """

    root = "s3://bucket"

    def __init__(self, url: str, env: dict[str, str]) -> None:
        import boto3

        super().__init__(url, env)
        self.client: Any = boto3.session.Session().client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="owner", aws_secret_access_key="of-it"
        )

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket="bucket", Key=name, Body=content)

    def read(self, name: str) -> bytes:
        return bytes(self.client.get_object(Bucket="bucket", Key=name)["Body"].read())

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket="bucket", Key=name)

    def names(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def unfinished(self) -> list[str]:
        """The names of uploads in parts that were begun, and neither completed nor given up."""
        found = self.client.list_multipart_uploads(Bucket="bucket").get("Uploads", [])
        return [upload["Key"] for upload in found]


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[S3Emulator]:
    """An emulator in a process of its own, and an environment with credentials, while the block runs.

    Args:
      folder: the home folder of that environment, where no other settings are found.
    """
    pytest.importorskip("boto3", reason="make setup installs it")
    pytest.importorskip("moto", reason="make setup installs it")
    [port] = free_ports(1)
    program = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    process = processes.start(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    url = f"http://127.0.0.1:{port}"
    env |= {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "owner",
        "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-owner",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        wait_for(lambda: urlopen(f"{url}/moto-api/data.json", timeout=20).read(), process)
        emulator = S3Emulator(url, env)
        emulator.client.create_bucket(Bucket="bucket")
        yield emulator
    finally:
        process.terminate()
        process.wait(timeout=20)
