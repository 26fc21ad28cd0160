"""Reads and writes the births as one would by hand, for the contestants without an engine."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv

from tests.benchmarks.contestants.common import NUMBERS, STRINGS, WORKERS, Job

BLOCK_BYTES = 8 << 20
TYPES = {
    "source_id": pa.string(),
    **dict.fromkeys(STRINGS, pa.dictionary(pa.int32(), pa.string())),
    **dict.fromkeys(NUMBERS, pa.float32()),
}


def run_blocks(job: Job, predict: Callable[[pa.RecordBatch], pa.Array]) -> int:
    """Has each thread read blocks until none is left, and write one shard; returns the number of rows."""
    names, blocks = cut(job.input)
    todo = iter(blocks)  # next() on a list's iterator is atomic

    def work(worker: int) -> int:
        rows = 0
        with open(job.input, "rb") as source, open(Path(job.output) / f"{worker}.csv", "wb") as sink:
            sink.write(b"source_id,predictions\n")
            for start, end in todo:
                source.seek(start)
                batch = parse(source.read(end - start), names)
                sink.write(encoded(batch["source_id"], predict(batch)))
                rows += batch.num_rows
        return rows

    with ThreadPoolExecutor(WORKERS) as pool:
        return sum(pool.map(work, range(WORKERS)))


def cut(path: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Finds the header's names, and byte ranges that end at newlines."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        names = file.readline().decode().strip().split(",")
        cuts = [file.tell()]
        while cuts[-1] < size:
            file.seek(min(cuts[-1] + BLOCK_BYTES, size))
            file.readline()
            cuts.append(file.tell())
    return names, list(zip(cuts, cuts[1:], strict=False))


def parse(raw: bytes, names: list[str]) -> pa.RecordBatch:
    """Parses one block into one record batch."""
    table = pacsv.read_csv(
        pa.py_buffer(raw),
        read_options=pacsv.ReadOptions(column_names=names, use_threads=False, block_size=len(raw) + 1),
        convert_options=pacsv.ConvertOptions(column_types=TYPES),
    )
    return table.to_batches()[0]


def encoded(keys: pa.Array, predictions: pa.Array) -> memoryview:
    """Encodes lines of CSV. The writer of polars is faster than that of pyarrow here."""
    lines = io.BytesIO()
    frame = pl.from_arrow(pa.record_batch([keys, predictions], names=["source_id", "predictions"]))
    frame.write_csv(lines, include_header=False)
    return lines.getbuffer()
