"""Writes files to a table by one pending stream of the Storage Write API: all rows appear with its commit.

Before the commit, the stream's name is written down. Whoever comes after a crash commits that stream again, and
BigQuery tells that it was committed; a stream that was not finalized before the crash is left, and its rows with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from pipelines import storage
from pipelines.connectors.bigquery import write_api
from pipelines.connectors.bigquery.settings import DeliverySettings
from pipelines.connectors.bigquery.tables import make_client
from pipelines.connectors.bigquery.write_api import AppendStream, WriteApiError
from pipelines.connectors.files.publishing.delivery import DeliveryError, DeliveryOrder, DeliveryRefusedError

_CODE = grpc.StatusCode
_PASSING = (_CODE.UNAVAILABLE, _CODE.DEADLINE_EXCEEDED, _CODE.ABORTED, _CODE.INTERNAL, _CODE.RESOURCE_EXHAUSTED,
            _CODE.CANCELLED, _CODE.UNKNOWN)  # fmt: skip
_TRIES = 8
_MOST_BYTES = 4 << 20
"""Most bytes of rows in a request: BigQuery takes 10 MB, all else in it included."""
_MOST_ROWS = 65_536
_T = TypeVar("_T")


def write(order: DeliveryOrder, settings: DeliverySettings, folder: str, note: str) -> int:
    """Writes the rows of shards, unless they have been committed; returns how many.

    Args:
      order: what to write.
      settings: the table, and how it is written.
      folder: the folder of the shards; ends in a slash.
      note: path of the file with the name of the stream that is to be committed.

    Raises:
      DeliveryRefusedError: BigQuery refuses them; nothing was written.
      DeliveryError: it does not answer.
    """
    transport = write_api.make_transport()
    try:
        found = _read_note(note, order.run)
        if found is not None:
            stream, rows = found["stream"], int(found["rows"])
        else:
            _ready(settings)
            stream, rows = _append_all(transport, order, settings, folder)
            storage.write_whole(note, json.dumps({"run": order.run, "stream": stream, "rows": rows}).encode())
        _again(lambda: write_api.commit_stream(transport, settings.target.path, stream))
        return rows
    except WriteApiError as error:
        if error.code == _CODE.NOT_FOUND and storage.size_of(note) is not None:
            # A stream that was committed long ago may be forgotten, too: writing its rows again could double them.
            raise DeliveryError(
                f"{order.what}: BigQuery does not know the stream any more that was to be committed; look whether the "
                f"rows are in the table; if they are not, remove {note}, and run the same command again"
            ) from None
        if error.code in _PASSING:
            raise DeliveryError(
                f"{order.what}: BigQuery does not answer: {error}; run the same command again, which completes it"
            ) from None
        raise DeliveryRefusedError(f"{order.what}: BigQuery refuses the rows, none was written: {error}") from None
    finally:
        transport.close()


def _read_note(path: str, run: str) -> dict[str, Any] | None:
    content = storage.read_small(path, 64 << 10)
    found = json.loads(content) if content else None
    return found if found is not None and found.get("run") == run else None


def _ready(settings: DeliverySettings) -> None:
    """Creates the table, if it is not there and may be created."""
    from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound
    from google.cloud.bigquery import Table as Definition

    try:
        with make_client(settings.target.project) as client:
            try:
                found = client.get_table(str(settings.target))
            except NotFound:
                if not settings.create:
                    raise
                definition = Definition(str(settings.target), settings.fields)
                settings.lay_out(definition)
                try:
                    client.create_table(definition)
                except Conflict:
                    pass
                return
    except GoogleAPICallError as error:
        refused = 400 <= (error.code or 0) < 500
        raise WriteApiError(_CODE.FAILED_PRECONDITION if refused else _CODE.UNAVAILABLE, str(error.message)) from None
    if settings.write == "fail_if_exists" and found.num_rows:
        raise WriteApiError(_CODE.ALREADY_EXISTS, "the table has rows that came while the run went on")


def _append_all(transport: Any, order: DeliveryOrder, settings: DeliverySettings, folder: str) -> tuple[str, int]:
    """Appends all rows to a new stream and ends it; returns its name, and how many rows it has."""
    stream = _again(lambda: write_api.make_pending_stream(transport, settings.target.path))
    appender = _PendingAppender(transport, stream)
    try:
        for shard in order.shards:
            for batch in _batches(folder + shard.name):
                appender.append(batch)
    finally:
        appender.close()
    counted = _again(lambda: write_api.finalize_stream(transport, stream))
    if counted != appender.rows:
        raise WriteApiError(
            _CODE.DATA_LOSS, f"the stream has {counted:,} rows, and {appender.rows:,} were appended to it"
        )
    return stream, appender.rows


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    """Gives the rows of a shard in pieces that fit into a request."""
    with storage.open_input(path) as file:
        for batch in pq.ParquetFile(file).iter_batches(_MOST_ROWS):
            pending = [batch]
            while pending:
                rows = pending.pop()
                if rows.nbytes > _MOST_BYTES and rows.num_rows > 1:
                    middle = rows.num_rows // 2
                    pending += [rows[middle:], rows[:middle]]
                elif rows.num_rows:
                    yield rows


class _PendingAppender:
    """Appends batches at their offsets, each once however often it is sent."""

    def __init__(self, transport: Any, stream: str) -> None:
        self.rows = 0
        self._transport = transport
        self._stream = stream
        self._connection: AppendStream | None = None

    def append(self, batch: pa.RecordBatch) -> None:
        _again(lambda: self._send(batch))
        self.rows += batch.num_rows

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, batch: pa.RecordBatch) -> None:
        try:
            is_new = self._connection is None
            if self._connection is None:
                self._connection = AppendStream(self._transport, self._stream)
            answer = self._connection.send(self._request(batch, is_new))
            code = write_api.code_of(answer.error.code)
            if code not in (_CODE.OK, _CODE.ALREADY_EXISTS):
                rows = [f"row {each.index}: {each.message}" for each in answer.row_errors[:3]]
                raise WriteApiError(code, " ".join("; ".join([answer.error.message, *rows]).split())[:500])
        except WriteApiError as error:
            self.close()
            if error.code != _CODE.ALREADY_EXISTS:
                raise

    def _request(self, batch: pa.RecordBatch, is_new: bool) -> Any:
        from google.cloud.bigquery_storage_v1 import types

        request = types.AppendRowsRequest(write_stream=self._stream, offset=self.rows)
        request.arrow_rows.rows.serialized_record_batch = batch.serialize().to_pybytes()
        if is_new:
            request.arrow_rows.writer_schema.serialized_schema = batch.schema.serialize().to_pybytes()
        return request


def _again(call: Callable[[], _T]) -> _T:
    """Calls, and calls again a few times while BigQuery is away."""
    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, WriteApiError) and error.code in _PASSING),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        stop=stop_after_attempt(_TRIES),
        reraise=True,
    )
    return retrying(call)
