"""Appends rows to a table of BigQuery, and waits until they are durable."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.connectors.bigquery import write_api
from pipelines.connectors.bigquery.tables import Table
from pipelines.connectors.bigquery.write_api import AppendStream, WriteApiError
from pipelines.connectors.retry import wait_for_service

_MOST_BYTES = 8 << 20
"""Of the rows in a request: BigQuery takes 10 MB, of everything."""

_CODE = grpc.StatusCode
_REFUSED = (_CODE.INVALID_ARGUMENT, _CODE.OUT_OF_RANGE, _CODE.FAILED_PRECONDITION, _CODE.ALREADY_EXISTS)
_FATAL = (_CODE.PERMISSION_DENIED, _CODE.UNAUTHENTICATED, _CODE.UNIMPLEMENTED)
_LOST_STREAM = (_CODE.NOT_FOUND, _CODE.OUT_OF_RANGE, _CODE.FAILED_PRECONDITION)
_STREAM_STATES = ("STREAM_FINALIZED", "INVALID_STREAM_STATE", "STREAM_NOT_FOUND", "OFFSET_OUT_OF_RANGE")

_Indices = npt.NDArray[np.int64]


class Appender:
    """Appends record batches to a table on one connection. Used by one thread at a time.

    Without `exactly_once`, rows whose answer is lost are written again. With it they are not: the rows go to a stream
    of this appender's own, each at its offset. Should BigQuery lose that stream together with an answer, another is
    begun, and the rows of that one request may be there twice.

    Args:
      table: must exist.
      schema: of the batches; types are those of `tables.table_type`.
      exactly_once: see above.
    """

    def __init__(self, table: Table, schema: pa.Schema, exactly_once: bool = False) -> None:
        self._table = table
        self._schema = schema.serialize().to_pybytes()
        self._exactly_once = exactly_once
        self._transport: Any = None
        self._connection: AppendStream | None = None
        self._stream = ""
        self._offset = 0
        self._said_schema = False

    def append(self, batch: pa.RecordBatch) -> dict[int, str]:
        """Appends rows, and waits for as long as BigQuery is away or has too much to do.

        Returns:
          Why rows are refused, by their index; all others are durable.

        Raises:
          WriteApiError: nothing can be written, and waiting does not help.
        """
        refused: dict[int, str] = {}
        pending = [(batch, np.arange(batch.num_rows))]
        while pending:
            rows, indices = pending.pop()
            count = rows.num_rows
            if not count:
                continue
            if rows.nbytes <= _MOST_BYTES:
                whole, found = self._append(rows)
            else:
                whole, found = f"a row of {rows.nbytes:,} bytes is more than BigQuery takes", {}
            if found:
                # BigQuery has written none of the request's rows.
                refused |= {int(indices[row]): why for row, why in found.items()}
                good = np.setdiff1d(np.arange(count), list(found))
                pending.append((rows.take(pa.array(good)), indices[good]))
            elif whole and count == 1:
                refused[int(indices[0])] = whole
            elif whole:
                middle = count // 2
                pending += [(rows[middle:], indices[middle:]), (rows[:middle], indices[:middle])]
        return refused

    def close(self) -> None:
        """Disconnects."""
        self._disconnect()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _append(self, rows: pa.RecordBatch) -> tuple[str, dict[int, str]]:
        """Why a request is refused, or rows in it are; nothing if all of it is written."""
        encoded = rows.serialize().to_pybytes()

        def waits(error: BaseException) -> bool:
            return isinstance(error, WriteApiError) and error.code not in _FATAL

        return wait_for_service(lambda: self._try(encoded, rows.num_rows), waits, str(self._table))

    def _try(self, encoded: bytes, count: int) -> tuple[str, dict[int, str]]:
        code, message, row_errors = self._answer(encoded)
        if code == _CODE.OK or (self._exactly_once and code == _CODE.ALREADY_EXISTS):
            self._offset += count
            return "", {}
        if row_errors:
            return "", row_errors
        if self._exactly_once and (code in _LOST_STREAM or any(state in message for state in _STREAM_STATES)):
            self._stream = ""
        elif code in _REFUSED:
            return message or code.name, {}
        self._disconnect()
        raise WriteApiError(code, message)

    def _answer(self, encoded: bytes) -> tuple[grpc.StatusCode, str, dict[int, str]]:
        """Code, message, and why which rows are refused."""
        try:
            if self._connection is None:
                self._connection = self._connected()
            answer = self._connection.send(self._request(encoded))
        except WriteApiError as error:
            self._disconnect()
            return error.code, str(error), {}
        row_errors = {int(each.index): _line(each.message) for each in answer.row_errors}
        return write_api.code_of(answer.error.code), _line(answer.error.message), row_errors

    def _connected(self) -> AppendStream:
        if self._transport is None:
            self._transport = write_api.make_transport()
        if not self._exactly_once:
            self._stream = f"{self._table.path}/streams/_default"
        elif not self._stream:
            self._stream = write_api.make_stream(self._transport, self._table.path)
            self._offset = 0
        self._said_schema = False
        return AppendStream(self._transport, self._stream)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _request(self, encoded: bytes) -> Any:
        from google.cloud.bigquery_storage_v1 import types

        request = types.AppendRowsRequest(write_stream=self._stream)
        request.arrow_rows.rows.serialized_record_batch = encoded
        if not self._said_schema:
            request.arrow_rows.writer_schema.serialized_schema = self._schema
            self._said_schema = True
        if self._exactly_once:
            request.offset = self._offset
        return request


def _line(message: str) -> str:
    return " ".join(message.split())[:300]
