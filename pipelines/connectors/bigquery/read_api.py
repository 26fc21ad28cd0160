"""Reads tables of BigQuery through its Storage Read API: sessions, and streams of Arrow batches that are resumed.

The library's own `ReadRowsStream` connects again without end and without waiting, and copies each message once more; a
stream here gives up after some attempts without a row between them.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
import pyarrow as pa

from pipelines.connectors.bigquery.answers import read_rows_of
from pipelines.connectors.bigquery.silence import Patience
from pipelines.connectors.bigquery.transport import connected_to, told

_LOG = logging.getLogger(__name__)
_ANSWER_WITHIN_S = 60.0
_ATTEMPTS = 8
"""Attempts to read on without a row between them."""
_LONGEST_WAIT_S = 10.0
_LONGEST_SILENCE_S = 300.0
"""How long a stream's next answer may take: a selective filter makes BigQuery read much for a row."""

_CODE = grpc.StatusCode
_BROKEN = frozenset(
    (_CODE.UNAVAILABLE, _CODE.INTERNAL, _CODE.ABORTED, _CODE.UNKNOWN, _CODE.DEADLINE_EXCEEDED, _CODE.RESOURCE_EXHAUSTED)
)
"""What a stream is resumed after."""


class ReadFailedError(RuntimeError):
    """Raised when a stream cannot be read any further. The message is for people."""


@dataclass(frozen=True)
class Stream:
    """Names a part of a session: a piece of work that any worker with credentials can read.

    Attributes:
      name: projects/.../streams/...
      schema: of its batches, as Arrow serializes it.
    """

    name: str
    schema: bytes


@dataclass(frozen=True)
class ReadSession:
    """Holds a table as it was at one time, in streams.

    Attributes:
      streams: which together have each row once.
      schema: of all rows.
      rows: how many BigQuery estimates; 0 if it does not.
      nbytes: how many bytes it estimates to read; 0 if it does not.
    """

    streams: tuple[Stream, ...]
    schema: pa.Schema
    rows: int
    nbytes: int


@dataclass(frozen=True)
class StreamRows:
    """Holds the rows of one answer.

    Attributes:
      batch: the rows.
      offset: number, in the stream, of the first of them.
      begin: share of the stream that came before them.
      end: share of the stream up to their end; both are 0 if the service does not tell.
    """

    batch: pa.RecordBatch
    offset: int
    begin: float
    end: float


def make_transport() -> Any:
    """Makes a transport to BigQuery, or to the emulator that BIGQUERY_STORAGE_EMULATOR_HOST names."""
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    return connected_to(BigQueryReadGrpcTransport)


@contextmanager
def connected() -> Iterator[Any]:
    """Makes a transport that is closed when the block ends."""
    transport = make_transport()
    try:
        yield transport
    finally:
        transport.close()


def open_session(
    transport: Any,
    table: str,
    parent: str,
    columns: Sequence[str],
    condition: str | None,
    snapshot_time: datetime | None,
    most_streams: int,
    timeout_s: float = _ANSWER_WITHIN_S,
) -> ReadSession:
    """Opens a session.

    Args:
      transport: see `make_transport`.
      table: projects/.../datasets/.../tables/...
      parent: the project that reads and pays.
      columns: the columns to read, fields of structs by their dotted names; all if there are none.
      condition: which rows, in SQL.
      snapshot_time: read the table as it was then.
      most_streams: the session has at most so many streams.
      timeout_s: how long the answer may take.

    Raises:
      grpc.RpcError: the service refuses, or does not answer.
    """
    from google.cloud.bigquery_storage_v1 import types

    wanted = types.ReadSession(table=table, data_format=types.DataFormat.ARROW)
    wanted.read_options.selected_fields = list(columns)
    wanted.read_options.row_restriction = condition or ""
    codec = types.ArrowSerializationOptions.CompressionCodec.LZ4_FRAME
    wanted.read_options.arrow_serialization_options = types.ArrowSerializationOptions(buffer_compression=codec)
    if snapshot_time is not None:
        wanted.table_modifiers.snapshot_time = snapshot_time
    request = types.CreateReadSessionRequest(
        parent=f"projects/{parent}", read_session=wanted, max_stream_count=most_streams
    )
    routing = [("x-goog-request-params", f"read_session.table={table}")]
    made = transport.create_read_session(request, timeout=timeout_s, metadata=routing)
    schema = made.arrow_schema.serialized_schema
    return ReadSession(
        tuple(Stream(stream.name, schema) for stream in made.streams),
        pa.ipc.read_schema(pa.py_buffer(schema)),
        int(made.estimated_row_count),
        int(made.estimated_total_bytes_scanned),
    )


def split(transport: Any, stream: Stream, fraction: float) -> tuple[Stream, Stream] | None:
    """Splits a stream in two that together have each of its rows once; None if it cannot be split.

    Args:
      transport: see `make_transport`.
      stream: is not to be read any more afterwards.
      fraction: share of the rows that the first of the two is to have, about.
    """
    from google.cloud.bigquery_storage_v1 import types

    request = types.SplitReadStreamRequest(name=stream.name, fraction=fraction)
    routing = [("x-goog-request-params", f"name={stream.name}")]
    try:
        found = transport.split_read_stream(request, timeout=_ANSWER_WITHIN_S, metadata=routing)
    except grpc.RpcError:
        # It is still whole.
        return None
    if not found.primary_stream.name or not found.remainder_stream.name:
        return None
    return Stream(found.primary_stream.name, stream.schema), Stream(found.remainder_stream.name, stream.schema)


def read(transport: Any, stream: Stream) -> Generator[StreamRows, None, None]:
    """Reads a stream to its end; where it breaks or says nothing for too long, it is resumed at the next row.

    Raises:
      ReadFailedError: it cannot be read any further.
    """
    from google.cloud.bigquery_storage_v1 import types

    schema = pa.ipc.read_schema(pa.py_buffer(stream.schema))
    routing = [("x-goog-request-params", f"read_stream={stream.name}")]
    read_rows = read_rows_of(transport)
    offset = failures = 0
    while True:
        request = types.ReadRowsRequest(read_stream=stream.name, offset=offset)
        call = read_rows(request, metadata=routing)
        answers = Patience(call, _LONGEST_SILENCE_S)
        try:
            for answer in answers:
                if answer.rows is None:
                    continue
                batch = pa.ipc.read_record_batch(answer.rows, schema)
                yield StreamRows(batch, offset, answer.begin, answer.end)
                offset += batch.num_rows
                failures = 0
            return
        except grpc.RpcError as error:
            failures += 1
            said = f"no answer within {_LONGEST_SILENCE_S:g} s" if answers.ended else told(error)
            if not (answers.ended or error.code() in _BROKEN) or failures >= _ATTEMPTS:
                raise _failure(error, said, failures) from None
            wait = min(_LONGEST_WAIT_S, 0.05 * 2**failures) * (0.5 + random.random())
            _LOG.info("a stream broke at row %s, reading on in %.1f s: %s", f"{offset:,}", wait, said)
            time.sleep(wait)
        finally:
            call.cancel()


def _failure(error: grpc.RpcError, said: str, attempts: int) -> ReadFailedError:
    if error.code() in (_CODE.FAILED_PRECONDITION, _CODE.NOT_FOUND) and "expire" in said.lower():
        return ReadFailedError(
            f"the read session has expired, BigQuery keeps one for six hours ({said}); run it again with more workers, "
            "and with source.snapshot_time if it is to read the same rows"
        )
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    return ReadFailedError(f"BigQuery gives no more rows of a stream{tried}: {said}")
