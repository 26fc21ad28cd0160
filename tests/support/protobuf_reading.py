"""Reads the sample messages."""

from __future__ import annotations

import pyarrow as pa

from pipelines.formats import ReadSpec
from pipelines.formats.protobuf.descriptor import MessageType
from pipelines.formats.protobuf.message import ProtobufReader
from tests.support.message_samples import descriptors


def reader(name: str, framing: str = "none", columns: pa.Schema | None = None) -> ProtobufReader:
    found = MessageType(descriptors(), f"shop.v1.{name}")
    options = {"descriptor": descriptors(), "message": f"shop.v1.{name}", "framing": framing}
    return ProtobufReader(ReadSpec(found.schema if columns is None else columns, options))
