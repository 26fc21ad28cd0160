"""Reads a table of BigQuery as (Origin, record batch). Streams of one read session are the pieces of work.

A session is a table as it was at one time, so its pieces fit together however late they are read. A retried piece is
read again from its beginning, and only the attempt that the runner commits counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics

from inference.coders import typed
from pipelines.config.bigquery import BigQuerySource
from pipelines.connectors.bigquery import queries, read_api
from pipelines.connectors.bigquery.read_api import ReadSession, Stream, StreamRows
from pipelines.connectors.bigquery.tables import Table, source_client
from pipelines.connectors.files.source import split_bytes_for
from pipelines.dead_letters.step import RECEIPTS
from pipelines.formats.bigquery_rows import BigQueryOrigin, flattened
from pipelines.plan import Extent
from pipelines.rows.coders import Rows
from pipelines.telemetry.accounting import FilePlanned, PieceRead
from pipelines.telemetry.latency import timed
from pipelines.telemetry.tally import TALLY

_MOST_STREAMS = 1000
"""BigQuery's limit for a session."""
_SMALL_BYTES = 2 << 20
_SMALL_STREAM_BYTES = 8 << 20
"""To look at the first answer of a stream costs about as much as to read so many bytes of it: they are on their way by
the time the service knows that no more are wanted."""
_BATCH_ROWS = 65_536
_BATCH_BYTES = 16 << 20
_THREADS = 16
_MOST_PARTS = 64
"""Pieces that one stream becomes at most."""


@dataclass(frozen=True)
class StreamPiece:
    """Names a stream to be read.

    Attributes:
      table: what is read, as a person would write it.
      number: of the piece.
      stream: its rows.
    """

    table: str
    number: int
    stream: Stream


def opened(
    transport: Any, client: Any, source: BigQuerySource, columns: list[str], most_streams: int, job: str
) -> ReadSession:
    """Opens the session of a source; a view or query is run first.

    Args:
      transport: of the Storage Read API.
      client: of REST.
      source: the config.
      columns: the columns to read.
      most_streams: see `read_api.open_session`.
      job: name of the query's job.
    """
    table = Table.parse(source.table) if source.table else None
    condition, snapshot_time = source.filter, source.snapshot_time
    if table is None or client.get_table(str(table)).table_type not in queries.READABLE_TABLES:
        table = queries.result_of(client, source, queries.sql_of(source, columns), job)
        condition = snapshot_time = None
    return read_api.open_session(transport, table.path, client.project, columns, condition, snapshot_time, most_streams)


class OpenSession(beam.DoFn):  # type: ignore[misc]
    """Opens the read session: anything -> StreamPieces; receipts tell how many there are.

    Args:
      source: the config.
      columns: the columns to read.
      pieces: how many pieces there should be where nobody knows how large the table is.
      nbytes: how large it is; 0 if nobody knows.
      job: name of a query's job, so that a step that is tried again does not run it again.
    """

    def __init__(self, source: BigQuerySource, columns: list[str], pieces: int, nbytes: int, job: str) -> None:
        self._source = source
        self._columns = columns
        self._pieces = pieces
        self._nbytes = nbytes
        self._job = job

    def process(self, _: object) -> Iterator[Any]:
        label = self._source.table or "query"
        with source_client(self._source) as client, read_api.connected() as transport:
            asked_for = self._wanted(self._nbytes)
            session = opened(transport, client, self._source, self._columns, asked_for, self._job)
            streams = balanced(transport, session, self._wanted(session.nbytes or self._nbytes))
        pieces = [StreamPiece(label, number, stream) for number, stream in enumerate(streams)]
        numbers = tuple((piece.number, piece.number + 1) for piece in pieces)
        yield beam.pvalue.TaggedOutput(RECEIPTS, FilePlanned(label, numbers))
        yield from pieces

    def _wanted(self, nbytes: int) -> int:
        """Returns how many pieces there should be."""
        if not nbytes:
            return self._pieces
        if nbytes <= _SMALL_BYTES:
            return 1
        return min(_MOST_STREAMS, -(-nbytes // split_bytes_for(nbytes)))


def balanced(transport: Any, session: ReadSession, wanted: int) -> list[Stream]:
    """Returns the streams of a session, those split that have far more rows than others.

    Args:
      transport: of the Storage Read API.
      session: whose streams nobody reads yet.
      wanted: how many pieces there should be, about.
    """
    if wanted < 2 or not session.streams:
        return list(session.streams)
    with ThreadPoolExecutor(min(_THREADS, len(session.streams))) as pool:
        sizes = _sizes(transport, session, pool)
        share = sum(sizes) / wanted or 1.0

        def parts(stream: Stream, size: int) -> list[Stream]:
            found = []
            for left in range(min(_MOST_PARTS, round(size / share)), 1, -1):
                halves = read_api.split(transport, stream, 1 / left)
                if halves is None:
                    break
                found.append(halves[0])
                stream = halves[1]
            return [*found, stream]

        return [part for found in pool.map(parts, session.streams, sizes) for part in found]


def _sizes(transport: Any, session: ReadSession, pool: ThreadPoolExecutor) -> list[int]:
    """Returns about how many rows each stream has, in relation to each other.

    A stream does not say how many rows it has, but its first answer says how large a share of the stream it is. Where
    it is not worth that look, or the service does not tell, streams count as even: BigQuery gives them about as many
    rows each, before the filter, as the units allow in which it stores the table.
    """
    first, *others = session.streams
    even = [1] * len(session.streams)
    if not others or 0 < session.nbytes <= _SMALL_STREAM_BYTES * len(even):
        return even
    size = _size(transport, first)
    if size is None:
        return even
    return [size, *(found or 0 for found in pool.map(lambda stream: _size(transport, stream), others))]


def _size(transport: Any, stream: Stream) -> int | None:
    """Returns about how many rows a stream has; None if the service does not tell. No call is left open."""
    with closing(read_api.read(transport, stream)) as answers:
        first = next(answers, None)
        if first is None:
            return 0
        if first.end < 1.0:
            return int(first.batch.num_rows / (first.end - first.begin)) if first.end > first.begin else None
        # It says that there are no more. A service for which that is not true may not bear that a call is broken off.
        return None if sum(answer.batch.num_rows for answer in answers) else first.batch.num_rows


class ReadStream(beam.DoFn):  # type: ignore[misc]
    """Reads streams: StreamPiece -> (Origin, record batch); receipts tell how many rows it had.

    Args:
      columns: the columns to read, in their order.
      row_bytes: bytes of a row, about, for progress.
    """

    _transport: Any = None

    def __init__(self, columns: list[str], row_bytes: float) -> None:
        self._columns = columns
        self._row_bytes = row_bytes
        self._counted = Metrics.counter("predict", "rows_read")

    def setup(self) -> None:
        self._transport = read_api.make_transport()

    def teardown(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def process(self, piece: StreamPiece) -> Iterator[Any]:
        rows = 0
        label = f"{piece.table}/{piece.number}"
        answers = read_api.read(self._transport, piece.stream)
        batches = (flattened(batch, self._columns) for batch in gathered(answers))
        for read in timed("read", batches, lambda batch: int(batch.num_rows)):
            self._counted.inc(read.num_rows)
            TALLY.add(read=read.num_rows, nbytes=int(read.num_rows * self._row_bytes))
            yield BigQueryOrigin(label, rows, read), read
            rows += read.num_rows
        yield beam.pvalue.TaggedOutput(RECEIPTS, PieceRead(piece.table, (piece.number, piece.number + 1), rows))


def gathered(answers: Iterator[StreamRows]) -> Iterator[pa.RecordBatch]:
    """Puts the small batches of answers together: a call of the model should have many rows."""
    batches: list[pa.RecordBatch] = []
    rows = nbytes = 0
    for answer in answers:
        if not answer.batch.num_rows:
            continue
        batches.append(answer.batch)
        rows += answer.batch.num_rows
        # Not `nbytes`, which takes longer than decoding: it looks at the offsets of each column.
        nbytes += answer.batch.get_total_buffer_size()
        if rows >= _BATCH_ROWS or nbytes >= _BATCH_BYTES:
            yield _together(batches)
            batches, rows, nbytes = [], 0, 0
    if batches:
        yield _together(batches)


def _together(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


class ReadBigQuery(beam.PTransform):  # type: ignore[misc]
    """Reads a table, a view or a query's result; gives the pairs and the receipts.

    Args:
      source: the config.
      columns: the columns to read.
      job: name of a query's job.
      extent: how much it is.
    """

    def __init__(self, source: BigQuerySource, columns: list[str], job: str, extent: Extent) -> None:
        super().__init__()
        self._source = source
        self._columns = columns
        self._job = job
        self._extent = extent

    def expand(self, pbegin: beam.pvalue.PBegin) -> Any:
        pieces = max(16, 4 * (os.cpu_count() or 1))
        rows, nbytes = self._extent.rows, self._extent.nbytes
        session = OpenSession(self._source, self._columns, pieces, nbytes, self._job)
        read_stream = ReadStream(self._columns, nbytes / rows if rows else 0.0)
        planned = (
            pbegin
            | "Source" >> beam.Create([None])
            | "Session" >> beam.ParDo(session).with_outputs(RECEIPTS, main="pieces")
        )
        read = (
            planned.pieces
            | "Share" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(read_stream).with_outputs(RECEIPTS, main="batches")
        )
        return typed(read.batches, Rows), [planned[RECEIPTS], read[RECEIPTS]]
