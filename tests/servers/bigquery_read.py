"""Stands in for BigQuery that reads: sessions, streams and the few calls of REST that a source makes.

It does what the emulator does not: it heeds offsets, splits streams, breaks them where a test says so, ends sessions,
has columns of every type, and refuses as BigQuery does. It listens on 127.0.0.1 only.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

PROJECT = "p"
_SERVICE = "google.cloud.bigquery.storage.v1.BigQueryRead"
_CODE = grpc.StatusCode

Break = Callable[[str, int, int], grpc.StatusCode | None]
"""Tells with which code a call breaks: of stream, number of the call for it, and offset of the answer to come."""


@dataclass
class StoredTable:
    """A table: its rows, and how many of them each stream of a session gets."""

    rows: pa.Table
    sizes: Sequence[int]
    type: str = "TABLE"
    location: str = "US"


@dataclass
class _Stream:
    table: pa.Table
    start: int
    end: int


@dataclass
class StandIn:
    """What the stand-in holds, how it fails, and what it was asked.

    Attributes:
      tables: by their names <project>.<dataset>.<table>.
      answer_rows: rows in an answer.
      keeps_answers: answers are encoded once, when a session asks for their columns the first time.
      tells_progress: if not, every answer says that it is the whole stream, as the emulator's do.
      breaks: see `Break`.
      expired: every stream's session has ended.
      refused: code and message of every CreateReadSession, if it is to be refused.
      rest_error: code and message of every REST call, if it is to fail.
      query: the answer to each query: the table with its result, or (code, message).
      query_bytes: what a dry run says that it reads.
      sessions: the sessions asked for.
      calls: of ReadRows: (stream, offset).
      open_calls: those of ReadRows that go on: (stream, number of the call for it).
      broken_off: those that the reader ended before the last row was sent.
      served: rows sent by stream.
      sql: queries that were run or tried; with whether it was a dry run.
    """

    tables: dict[str, StoredTable] = field(default_factory=dict)
    answer_rows: int = 100
    keeps_answers: bool = False
    tells_progress: bool = True
    breaks: Break = lambda stream, call, offset: None
    expired: bool = False
    refused: tuple[grpc.StatusCode, str] | None = None
    rest_error: tuple[int, str] | None = None
    query: str | tuple[int, str] = ""
    query_bytes: int = 1000
    sessions: list[Any] = field(default_factory=list)
    calls: list[tuple[str, int]] = field(default_factory=list)
    open_calls: set[tuple[str, int]] = field(default_factory=set)
    broken_off: list[tuple[str, int]] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)
    sql: list[tuple[str, bool]] = field(default_factory=list)
    rest: str = ""
    grpc: str = ""

    def __post_init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._projected: dict[tuple[str, ...], pa.Table] = {}
        self._encoded: dict[tuple[int, int, int], bytes] = {}
        self._lock = threading.Lock()

    def create_session(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answers CreateReadSession."""
        wanted = request.read_session
        self.sessions.append(request)
        if self.refused:
            context.abort(*self.refused)
        match = re.fullmatch(r"projects/(.*)/datasets/(.*)/tables/(.*)", wanted.table)
        assert match is not None
        table = self.tables.get(".".join(match.groups()))
        if table is None:
            context.abort(_CODE.NOT_FOUND, f"Not found: Table {wanted.table}")
        assert table is not None
        fields = tuple(wanted.read_options.selected_fields)
        kept = (wanted.table, *sorted(fields))
        rows = self._projected.get(kept)
        if rows is None or not self.keeps_answers:
            rows = _projected(table.rows, list(fields))
            self._projected[kept] = rows
        session = f"projects/{PROJECT}/locations/us/sessions/s{len(self.sessions)}"
        made = types.ReadSession(name=session, table=wanted.table, data_format=types.DataFormat.ARROW)
        made.arrow_schema.serialized_schema = rows.schema.serialize().to_pybytes()
        made.estimated_row_count = rows.num_rows
        made.estimated_total_bytes_scanned = rows.nbytes
        sizes = list(table.sizes)[: request.max_stream_count or None]
        sizes[-1:] = [rows.num_rows - sum(sizes[:-1])]
        start = 0
        for number, size in enumerate(sizes if rows.num_rows else []):
            name = f"{session}/streams/{number}"
            self._streams[name] = _Stream(rows, start, start + size)
            made.streams.append(types.ReadStream(name=name))
            start += size
        return made

    def read_rows(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """Answers ReadRows."""
        name, offset = request.read_stream, request.offset
        stream = self._streams[name]
        with self._lock:
            call = sum(stream_name == name for stream_name, _ in self.calls)
            self.calls.append((name, offset))
            self.open_calls.add((name, call))
        sent = offset

        def ended() -> None:
            with self._lock:
                self.open_calls.discard((name, call))
                if sent < stream.end - stream.start:
                    self.broken_off.append((name, call))

        if not context.add_callback(ended):
            ended()
        if self.expired:
            context.abort(_CODE.FAILED_PRECONDITION, f"Session expired at 2026-01-01T06:00:00Z: {name}")
        total = stream.end - stream.start
        if offset > total:
            context.abort(_CODE.FAILED_PRECONDITION, f"offset {offset} is beyond the {total} rows of the stream")
        while offset < total:
            code = self.breaks(name, call, offset)
            if code is not None:
                context.abort(code, "the stream broke")
            count = min(self.answer_rows, total - offset)
            answer = types.ReadRowsResponse(row_count=count)
            answer.arrow_record_batch.serialized_record_batch = self._answer(stream.table, stream.start + offset, count)
            answer.stats.progress.at_response_start = offset / total if self.tells_progress else 0.0
            answer.stats.progress.at_response_end = (offset + count) / total if self.tells_progress else 1.0
            with self._lock:
                self.served[name] += count
            offset = sent = offset + count
            yield answer

    def _answer(self, rows: pa.Table, first: int, count: int) -> bytes:
        encoded = self._encoded.get((id(rows), first, count))
        if encoded is None:
            [batch] = rows.slice(first, count).combine_chunks().to_batches()
            encoded = batch.serialize().to_pybytes()
            if self.keeps_answers:
                self._encoded[id(rows), first, count] = encoded
        return encoded

    def split_stream(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answers SplitReadStream."""
        with self._lock:
            stream = self._streams[request.name]
            middle = stream.start + int((stream.end - stream.start) * request.fraction)
            if middle in (stream.start, stream.end):
                return types.SplitReadStreamResponse()
            names = [f"{request.name}a", f"{request.name}b"]
            self._streams[names[0]] = _Stream(stream.table, stream.start, middle)
            self._streams[names[1]] = _Stream(stream.table, middle, stream.end)
            primary, remainder = (types.ReadStream(name=name) for name in names)
        return types.SplitReadStreamResponse(primary_stream=primary, remainder_stream=remainder)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Answers a call of REST: code and JSON."""
        if self.rest_error:
            return self.rest_error
        if match := re.fullmatch(r"projects/(.*)/datasets/(.*)/tables/(.*)", path):
            name = ".".join(match.groups())
            return (200, self._described(name)) if name in self.tables else (404, f"Not found: Table {name}")
        if match := re.fullmatch(r"projects/(.*)/datasets/([^/]*)", path):
            project, dataset = match.groups()
            known = any(name.startswith(f"{project}.{dataset}.") for name in self.tables)
            described = {"datasetReference": {"projectId": project, "datasetId": dataset}}
            return (200, described) if known else (404, f"Not found: Dataset {project}.{dataset}")
        if method == "POST" and path.endswith("/jobs"):
            config = body["configuration"]
            dry = bool(config.get("dryRun"))
            self.sql.append((config["query"]["query"], dry))
            return self.query if isinstance(self.query, tuple) else (200, self._job(body, dry))
        if "/queries/" in path:
            return 200, {"jobComplete": True, "totalRows": "1", "schema": {"fields": []}}
        return 404, f"Not found: {path}"

    def _described(self, name: str) -> dict[str, Any]:
        table = self.tables[name]
        project, dataset, short = name.split(".")
        reference = {"projectId": project, "datasetId": dataset, "tableId": short}
        sizes = {"numRows": str(table.rows.num_rows), "numBytes": str(table.rows.nbytes)}
        return {"tableReference": reference, "type": table.type, "location": table.location, **sizes}

    def _job(self, body: dict[str, Any], dry: bool) -> dict[str, Any]:
        project, dataset, short = str(self.query).split(".")
        destination = {"projectId": project, "datasetId": dataset, "tableId": short}
        fields = [_field(field) for field in self.tables[str(self.query)].rows.schema]
        query = {"statementType": "SELECT", "schema": {"fields": fields}, "totalBytesProcessed": str(self.query_bytes)}
        reference = {"projectId": PROJECT, "location": "US", **body.get("jobReference", {})}
        configuration = dict(body["configuration"])
        configuration["query"] = {**configuration["query"], **({} if dry else {"destinationTable": destination})}
        return {
            "jobReference": reference,
            "configuration": configuration,
            "status": {"state": "DONE"},
            "statistics": {"totalBytesProcessed": str(self.query_bytes), "query": query},
        }


def _projected(rows: pa.Table, names: list[str]) -> pa.Table:
    """The columns asked for; of structs those fields that are, as BigQuery gives them."""
    if not names:
        return rows
    columns: dict[str, Any] = {}
    for column in rows.schema:
        paths = [name.split(".")[1:] for name in names if name.split(".")[0] == column.name]
        if paths:
            columns[column.name] = _pruned(rows[column.name].combine_chunks(), paths)
    missing = {name.split(".")[0] for name in names} - set(columns)
    assert not missing, f"no column {missing}"
    return pa.table(columns)


def _pruned(array: pa.Array, paths: list[list[str]]) -> pa.Array:
    if [] in paths:
        return array
    fields = {}
    for name in dict.fromkeys(path[0] for path in paths):
        fields[name] = _pruned(array.field(name), [path[1:] for path in paths if path[0] == name])
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(list(fields.values()), names=list(fields), mask=mask)


_NAMES = {"int64": "INTEGER", "double": "FLOAT", "string": "STRING", "bool": "BOOLEAN", "binary": "BYTES"}


def _field(field: pa.Field) -> dict[str, Any]:
    return {"name": field.name, "type": _NAMES[str(field.type)], "mode": "NULLABLE"}


@contextlib.contextmanager
def bigquery_stand_in(standing: StandIn) -> Iterator[StandIn]:
    """Serves a stand-in until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length)
            # Tokens are asked for by a form.
            body = json.loads(content) if content.startswith(b"{") else {}
            path = self.path.partition("?")[0].removeprefix("/bigquery/v2/")
            code, content = standing.answer(self.command, path, body)
            if code >= 400:
                content = {"error": {"code": code, "message": content, "errors": [{"message": content}]}}
            encoded = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = _handle

        def log_message(self, *_: object) -> None: ...

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    methods = {
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(
            standing.create_session, types.CreateReadSessionRequest.deserialize, types.ReadSession.serialize
        ),
        "ReadRows": grpc.unary_stream_rpc_method_handler(
            standing.read_rows, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
        ),
        "SplitReadStream": grpc.unary_unary_rpc_method_handler(
            standing.split_stream, types.SplitReadStreamRequest.deserialize, types.SplitReadStreamResponse.serialize
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    standing.rest, standing.grpc = f"127.0.0.1:{web.server_address[1]}", f"127.0.0.1:{port}"
    try:
        yield standing
    finally:
        server.stop(None).wait()
        web.shutdown()
        web.server_close()
