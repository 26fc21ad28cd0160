"""Decodes answers of ReadRows. Their rows, which are nearly all of an answer, are copied once, and not by protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.formats.protobuf.wire import read_varint

_METHOD = "/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows"
_RECORD_BATCH = 4
"""Number of ReadRowsResponse.arrow_record_batch."""
_SERIALIZED_RECORD_BATCH = 1
"""Number of ArrowRecordBatch.serialized_record_batch."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class ReadAnswer:
    """Holds what is used of an answer.

    Attributes:
      rows: a record batch as Arrow serializes it; None if there is none.
      begin: see `StreamRows`.
      end: see `StreamRows`.
    """

    rows: pa.Buffer | None
    begin: float
    end: float


def read_rows_of(transport: Any) -> Any:
    """Returns the method ReadRows of a transport, with `ReadAnswer`s for answers."""
    from google.cloud.bigquery_storage_v1 import types

    return transport.grpc_channel.unary_stream(
        _METHOD, request_serializer=types.ReadRowsRequest.serialize, response_deserializer=decoded
    )


def decoded(message: bytes) -> ReadAnswer:
    """Decodes an answer.

    Raises:
      ValueError, google.protobuf.message.DecodeError: it is none.
    """
    from google.cloud.bigquery_storage_v1 import types

    rows, rest = None, message
    if outer := _found(message, _RECORD_BATCH, 0, len(message)):
        tag, begin, end = outer
        rest = message[:tag] + message[end:]
        if inner := _found(message, _SERIALIZED_RECORD_BATCH, begin, end):
            rows = _copied(memoryview(message)[inner[1] : inner[2]])
            if _found(message, _SERIALIZED_RECORD_BATCH, inner[2], end):
                raise ValueError("the message has its rows in two places")
    others = types.ReadRowsResponse.pb(types.ReadRowsResponse.deserialize(rest))
    if others.HasField("arrow_record_batch"):
        raise ValueError("the message has its rows in two places")
    progress = others.stats.progress
    return ReadAnswer(rows, progress.at_response_start, progress.at_response_end)


def _copied(content: memoryview) -> pa.Buffer:
    """Copies bytes to memory of Arrow, which is used again; messages that are kept would take pages anew."""
    copy = pa.allocate_buffer(len(content))
    memoryview(copy).cast("B")[:] = content
    return copy


def _found(message: bytes, number: int, begin: int, end: int) -> tuple[int, int, int] | None:
    """Finds the first field of a number in a part of a message: the places of its tag, its content and its end."""
    place = begin
    try:
        while place < end:
            tag_begin = place
            tag, place = read_varint(message, place)
            kind = tag & 7
            if kind == _BYTES:
                size, place = read_varint(message, place)
                if tag >> 3 == number and place + size <= end:
                    return tag_begin, place, place + size
                place += size
            elif kind == _VARINT:
                _, place = read_varint(message, place)
            elif kind in (_FIXED64, _FIXED32):
                place += 8 if kind == _FIXED64 else 4
            else:
                raise ValueError(f"protobuf has no wire type {kind} that is in use")
    except IndexError:
        place = end + 1
    if place > end:
        raise ValueError("the message ends in a field")
    return None
