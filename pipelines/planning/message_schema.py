"""Reads the files that say what messages look like: schemas of Avro, descriptors of protobuf."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from inference.stores.errors import StoreError
from pipelines import storage
from pipelines.config.messages import MessageSource
from pipelines.formats import FormatError, ReadSpec

_MAX_BYTES = 16 << 20


def look_at(source: MessageSource, problems: list[str]) -> tuple[pa.Schema | None, dict[str, Any]]:
    """Finds the columns of messages, and what their reader has to know.

    None where a file is not what it should be; no columns where messages alone show what they have.
    """
    if source.format == "avro":
        return _avro(source, problems)
    if source.format == "protobuf":
        return _protobuf(source, problems)
    return pa.schema([]), {}


def _avro(source: MessageSource, problems: list[str]) -> tuple[pa.Schema | None, dict[str, Any]]:
    from pipelines.formats.avro.message import AvroMessageReader, parse_schema

    path = str(source.schema_)
    text = _content("source.schema", path, problems)
    if text is None:
        return None, {}
    try:
        options = {"schema": parse_schema(text), "framing": source.framing}
        columns = AvroMessageReader.columns(options["schema"])
        # Some mistakes show only when a fingerprint is made of it.
        AvroMessageReader(ReadSpec(columns, options))
        return columns, options
    except FormatError as error:
        problems.append(f"source.schema: {path}: {error}")
        return None, {}


def _protobuf(source: MessageSource, problems: list[str]) -> tuple[pa.Schema | None, dict[str, Any]]:
    from pipelines.formats.protobuf.descriptor import MessageType, UnknownMessageError

    path, name = str(source.descriptor), str(source.message)
    content = _content("source.descriptor", path, problems)
    if content is None:
        return None, {}
    try:
        schema = MessageType(content, name).schema
        return schema, {"descriptor": content, "message": name, "framing": source.framing}
    except UnknownMessageError as error:
        problems.append(f"source.message: {path}: {error}")
    except FormatError as error:
        problems.append(f"source.descriptor: {path}: {error}")
    return None, {}


def _content(where: str, path: str, problems: list[str]) -> bytes | None:
    try:
        found = storage.read_range(path, 0, _MAX_BYTES + 1)
        if len(found) <= _MAX_BYTES:
            return found
        problems.append(f"{where}: {path} has more than {_MAX_BYTES:,} bytes; make it smaller")
        return None
    except StoreError as error:
        problems.append(f"{where}: {error}")
        return None
    except Exception as error:  # a file system's own errors, of any class
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0][:300]
        problems.append(f"{where}: {path} cannot be read: {reason}")
        return None
