"""`python -m tests.benchmarks.bigquery`: a table -> predictions -> CSV, against a bare loop that only reads the table.

A stand-in of the Storage Read API in a process of its own serves births, in answers that are encoded before anything is
timed: it has no disk and no network, so the bare loop copies memory. With --emulator the table is in the BigQuery
emulator, which reads it from DuckDB. The bare loop is Google's client: the streams of one session in as many threads as
the run has, answers thrown away. Imports are not timed. All take turns. "Source alone" is this project's reading, in as
many threads: session, answers decoded and gathered to batches, thrown away.

exit codes: 0 everything was measured, whether or not the target is met; 1 a run failed
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from pipelines.config.bigquery import BigQuerySource
from pipelines.connectors.bigquery.source import OpenSession, ReadStream, StreamPiece
from pipelines.connectors.simulated.natality import births_at
from tests.benchmarks.report import Table, check_target, print_tables, write_markdown
from tests.servers.bigquery_emulator import DATASET, bigquery_emulator
from tests.servers.bigquery_read import StandIn, StoredTable, bigquery_stand_in

TARGET = 0.7
"""Share of the bare loop's rate."""
NAME = "p.d.births"
STREAMS = 16
ANSWER_ROWS = 8192
COLUMNS = [
    "source_id", "is_male", "mother_race", "mother_age", "plurality", "gestation_weeks", "mother_married",
    "cigarette_use", "alcohol_use",
]  # fmt: skip
HEADER = ("BigQuery -> predict -> CSV", "rows", "seconds", "rows/s", "of the bare loop", "target", "met")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.bigquery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="in the table (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (%(default)s)")
    parser.add_argument("--markdown", metavar="FILE", help="put the results between the marks of a file, - to print")
    parser.add_argument("--emulator", action="store_true", help="read from the BigQuery emulator, not the stand-in")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve:
        return _serve(options.rows)
    check_target([Table("bigquery", [], HEADER, section="bigquery")], options.markdown)
    bare: list[float] = []
    alone: list[float] = []
    ours: list[float] = []
    with _in_emulator(options.rows) if options.emulator else _in_stand_in(options.rows) as (name, hosts):
        os.environ |= hosts
        try:
            _bare(name, options.rows)
            for round in range(options.repeats):
                bare.append(_bare(name, options.rows))
                alone.append(_source_alone(name, options.rows))
                ours.append(_ours(name, options.rows))
                rates = [f"{options.rows / each[-1]:,.0f} rows/s" for each in (bare, alone, ours)]
                done = f"round {round + 1}/{options.repeats}"
                print(f"{done}  bare {rates[0]}, source alone {rates[1]}, this project {rates[2]}", file=sys.stderr)
        except RuntimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    rows, met = [_cells("bare loop", options.rows, statistics.median(bare), "", "", "")], [None]
    for what, seconds in (("this project, source alone", alone), ("this project", ours)):
        share = statistics.median(bare) / statistics.median(seconds)
        met.append(share >= TARGET)
        answer = "yes" if met[-1] else "NO"
        rows.append(_cells(what, options.rows, statistics.median(seconds), f"{share:.2f}", f">= {TARGET:g}", answer))
    table = Table("BigQuery, medians", rows, HEADER, met, "bigquery")
    if options.markdown:
        write_markdown([table], options.markdown)
    else:
        print_tables([table])
    return 0


def _cells(name: str, rows: int, seconds: float, *others: str) -> tuple[str, ...]:
    return (name, f"{rows:,}", f"{seconds:.2f}", f"{rows / seconds:,.0f}", *others)


def _births(count: int) -> pa.Table:
    pieces = []
    for first in range(0, count, 100_000):
        numbers = np.arange(first, min(first + 100_000, count))
        lines = births_at(numbers, 1, np.full(len(numbers), 1_700_000_000_000_000))
        pieces.append(pyarrow.json.read_json(pa.BufferReader(b"\n".join(lines.to_pylist()))))
    return pa.concat_tables(pieces)


@contextlib.contextmanager
def _in_stand_in(rows: int) -> Iterator[tuple[str, dict[str, str]]]:
    """The table's name and the hosts that serve it."""
    command = [sys.executable, "-m", "tests.benchmarks.bigquery", "--serve", "--rows", str(rows)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield NAME, json.loads(server.stdout.readline())
        finally:
            server.kill()


@contextlib.contextmanager
def _in_emulator(rows: int) -> Iterator[tuple[str, dict[str, str]]]:
    from google.cloud.bigquery import LoadJobConfig, SchemaField

    types = {"int64": "INT64", "double": "FLOAT64", "string": "STRING", "bool": "BOOL", "timestamp[s]": "TIMESTAMP"}
    with bigquery_emulator() as emulator, emulator.client() as client:
        table = _births(rows)
        content = io.BytesIO()
        pq.write_table(table, content)
        content.seek(0)
        schema = [SchemaField(field.name, types.get(str(field.type), "STRING")) for field in table.schema]
        config = LoadJobConfig(source_format="PARQUET", schema=schema)
        client.load_table_from_file(content, f"{DATASET}.births", job_config=config).result()
        hosts = {"BIGQUERY_EMULATOR_HOST": emulator.rest, "BIGQUERY_STORAGE_EMULATOR_HOST": emulator.grpc}
        yield f"{DATASET}.births", hosts


def _serve(count: int) -> int:
    """Serves the table until standard input ends."""
    table = StoredTable(_births(count), [count // STREAMS] * STREAMS)
    with bigquery_stand_in(StandIn({NAME: table}, answer_rows=ANSWER_ROWS, keeps_answers=True)) as made:
        hosts = {"BIGQUERY_EMULATOR_HOST": made.rest, "BIGQUERY_STORAGE_EMULATOR_HOST": made.grpc}
        print(json.dumps(hosts), flush=True)
        sys.stdin.read()
    return 0


def _bare(name: str, rows: int) -> float:
    """Seconds in which Google's client reads the columns that the model needs, and nothing is done with them."""
    import grpc
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    host = os.environ["BIGQUERY_STORAGE_EMULATOR_HOST"]
    channel = grpc.insecure_channel(host, [("grpc.max_receive_message_length", -1)])
    client = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
    project, dataset, table = name.split(".")
    session = types.ReadSession(
        table=f"projects/{project}/datasets/{dataset}/tables/{table}", data_format=types.DataFormat.ARROW
    )
    session.read_options.selected_fields = COLUMNS
    began = time.perf_counter()
    made = client.create_read_session(parent=f"projects/{project}", read_session=session, max_stream_count=STREAMS)

    def drain(stream: str) -> int:
        return sum(message.row_count for message in client.read_rows(stream))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = sum(pool.map(drain, [stream.name for stream in made.streams]))
    seconds = time.perf_counter() - began
    if read != rows:
        raise RuntimeError(f"the bare loop read {read:,} rows of {rows:,}")
    return seconds


def _source_alone(name: str, rows: int) -> float:
    """Returns the seconds in which the steps that read give all rows, and nothing is done with them."""
    source = BigQuerySource(type="bigquery", table=name, key="source_id")
    began = time.perf_counter()
    found = OpenSession(source, COLUMNS, STREAMS, 0, "").process(None)
    pieces = SimpleQueue[StreamPiece]()
    for piece in found:
        if isinstance(piece, StreamPiece):
            pieces.put(piece)

    def drain(_: int) -> int:
        step = ReadStream(COLUMNS, 0.0)
        step.setup()
        read = 0
        with contextlib.suppress(Empty):
            while True:
                given = step.process(pieces.get_nowait())
                read += sum(each[1].num_rows for each in given if isinstance(each, tuple))
        step.teardown()
        return read

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        read = sum(pool.map(drain, range(threads)))
    seconds = time.perf_counter() - began
    if read != rows:
        raise RuntimeError(f"the source alone read {read:,} rows of {rows:,}")
    return seconds


def _ours(name: str, rows: int) -> float:
    """Seconds of a run, imports apart."""
    source = {"type": "bigquery", "table": name, "key": "source_id"}
    with tempfile.TemporaryDirectory() as folder:
        places = ["--set", f"output.path={folder}/out", "--set", f"dead_letters.path={folder}/dead"]
        command = [sys.executable, "-m", "pipelines.batch", "--json", "--set", f"source={json.dumps(source)}", *places]
        finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(f"the run ended with {finished.returncode}:\n{finished.stderr[-3000:]}")
    summary = json.loads(finished.stdout)
    if summary["rows_written"] != rows:
        raise RuntimeError(f"the run wrote {summary['rows_written']:,} rows of {rows:,}")
    return float(summary["seconds"])


if __name__ == "__main__":
    sys.exit(main())
