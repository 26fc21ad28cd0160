"""Calls the Storage Write API of BigQuery on a connection on which appends are answered one by one."""

from __future__ import annotations

import queue
import threading
from typing import Any

import grpc

from pipelines.connectors.bigquery.transport import connected_to, told

_ANSWER_WITHIN_S = 60.0


class WriteApiError(RuntimeError):
    """Raised when BigQuery rejects rows, or does not answer.

    Attributes:
      code: gRPC's.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        self.code = code
        super().__init__(message or code.name)


def make_transport() -> Any:
    """Returns a transport to BigQuery, or to the emulator that BIGQUERY_STORAGE_EMULATOR_HOST names."""
    from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport

    return connected_to(BigQueryWriteGrpcTransport)


def look_at(transport: Any, table: str, timeout_s: float) -> None:
    """Asks for the default stream of a table, `projects/.../tables/...`.

    Raises:
      grpc.RpcError: it is not there, or cannot be seen, or nobody answers.
    """
    from google.cloud.bigquery_storage_v1 import types

    name = f"{table}/streams/_default"
    request = types.GetWriteStreamRequest(name=name)
    transport.get_write_stream(request, timeout=timeout_s, metadata=[("x-goog-request-params", f"name={name}")])


def make_stream(transport: Any, table: str) -> str:
    """Makes a stream whose rows can be read as soon as they are appended, each at an offset; gives its name.

    Raises:
      WriteApiError: it cannot be made.
    """
    return _make_stream(transport, table, "COMMITTED")


def make_pending_stream(transport: Any, table: str) -> str:
    """Makes a stream whose rows can be read when it is committed, all at once; returns its name.

    Raises:
      WriteApiError: it cannot be made.
    """
    return _make_stream(transport, table, "PENDING")


def finalize_stream(transport: Any, stream: str) -> int:
    """Ends a stream, to which nothing can be appended then; returns how many rows it has.

    Raises:
      WriteApiError: it cannot be ended.
    """
    from google.cloud.bigquery_storage_v1 import types

    request = types.FinalizeWriteStreamRequest(name=stream)
    routing = [("x-goog-request-params", f"name={stream}")]
    try:
        return int(transport.finalize_write_stream(request, timeout=_ANSWER_WITHIN_S, metadata=routing).row_count)
    except grpc.RpcError as error:
        raise WriteApiError(error.code(), told(error)) from None


def commit_stream(transport: Any, table: str, stream: str) -> None:
    """Makes the rows of a pending stream that has ended visible; nothing is changed if they are.

    Raises:
      WriteApiError: it cannot be committed; with NOT_FOUND, BigQuery does not know it any more.
    """
    from google.cloud.bigquery_storage_v1 import types

    request = types.BatchCommitWriteStreamsRequest(parent=table, write_streams=[stream])
    routing = [("x-goog-request-params", f"parent={table}")]
    try:
        answer = transport.batch_commit_write_streams(request, timeout=_ANSWER_WITHIN_S, metadata=routing)
    except grpc.RpcError as error:
        raise WriteApiError(error.code(), told(error)) from None
    for problem in answer.stream_errors:
        if problem.code == types.StorageError.StorageErrorCode.STREAM_ALREADY_COMMITTED:
            return
        if _is_committed(transport, stream):
            return
        is_gone = problem.code == types.StorageError.StorageErrorCode.STREAM_NOT_FOUND
        code = grpc.StatusCode.NOT_FOUND if is_gone else grpc.StatusCode.FAILED_PRECONDITION
        raise WriteApiError(code, " ".join(problem.error_message.split())[:300])


def _is_committed(transport: Any, stream: str) -> bool:
    """Tells whether a pending stream was committed, as far as BigQuery says."""
    from google.cloud.bigquery_storage_v1 import types

    request = types.GetWriteStreamRequest(name=stream)
    routing = [("x-goog-request-params", f"name={stream}")]
    try:
        found = transport.get_write_stream(request, timeout=_ANSWER_WITHIN_S, metadata=routing)
    except grpc.RpcError:
        return False
    return bool(found.commit_time)


def _make_stream(transport: Any, table: str, kind: str) -> str:
    from google.cloud.bigquery_storage_v1 import types

    request = types.CreateWriteStreamRequest(
        parent=table, write_stream=types.WriteStream(type_=getattr(types.WriteStream.Type, kind))
    )
    routing = [("x-goog-request-params", f"parent={table}")]
    try:
        return str(transport.create_write_stream(request, timeout=_ANSWER_WITHIN_S, metadata=routing).name)
    except grpc.RpcError as error:
        raise WriteApiError(error.code(), told(error)) from None


def code_of(number: int) -> grpc.StatusCode:
    """Returns gRPC's status code of a number."""
    return next((code for code in grpc.StatusCode if code.value[0] == number), grpc.StatusCode.UNKNOWN)


class AppendStream:
    """Sends AppendRows requests and takes their answers, in the same order. Used by one thread at a time.

    Args:
      transport: see `make_transport`.
      stream: to append to, `projects/.../streams/...`.
    """

    def __init__(self, transport: Any, stream: str) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        routing = [("x-goog-request-params", f"write_stream={stream}")]
        self._call = transport.append_rows(iter(self._requests.get, None), metadata=routing)
        threading.Thread(target=self._read, name="bigquery answers", daemon=True).start()

    def send(self, request: Any) -> Any:
        """Returns the AppendRowsResponse to an AppendRowsRequest.

        Raises:
          WriteApiError: the connection is lost, or the answer does not come. The rows may have been written.
        """
        self._requests.put(request)
        try:
            answer = self._answers.get(timeout=_ANSWER_WITHIN_S)
        except queue.Empty:
            raise WriteApiError(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {_ANSWER_WITHIN_S:g} s") from None
        if isinstance(answer, WriteApiError):
            raise answer
        return answer

    def close(self) -> None:
        """Ends the call; answers still to come are lost."""
        # gRPC waits for the next request in a thread of its own.
        self._requests.put(None)
        self._call.cancel()

    def _read(self) -> None:
        try:
            for answer in self._call:
                self._answers.put(answer)
            self._answers.put(WriteApiError(grpc.StatusCode.UNAVAILABLE, "the connection was closed"))
        except grpc.RpcError as error:
            self._answers.put(WriteApiError(error.code(), told(error)))
