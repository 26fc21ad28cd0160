"""No engine: pyarrow, TensorFlow and two threads, as one would write it by hand for this file and this model.

Nothing is accounted for, retried or dead-lettered, and nothing but this one file layout is supported. This is
the time that the work itself takes.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import tensorflow as tf

from tests.benchmarks.contestants.common import (
    BATCH_ROWS,
    NUMBERS,
    STRINGS,
    WORKERS,
    Job,
    job_from_command_line,
    measure,
)

BLOCK_BYTES = 8 << 20
TYPES = {
    "source_id": pa.string(),
    **dict.fromkeys(STRINGS, pa.dictionary(pa.int32(), pa.string())),
    **dict.fromkeys(NUMBERS, pa.float32()),
}


def run(job: Job) -> int:
    """Each thread reads blocks until none is left, and writes one shard."""
    loaded = tf.saved_model.load(job.model)
    function = loaded.signatures["serving_default"]
    names, blocks = cut(job.input)
    todo = iter(blocks)  # next() on a list's iterator is atomic

    def work(worker: int) -> int:
        rows = 0
        with open(job.input, "rb") as source, open(Path(job.output) / f"{worker}.csv", "wb") as sink:
            sink.write(b"source_id,predictions\n")
            for start, end in todo:
                source.seek(start)
                batch = parse(source.read(end - start), names)
                sink.write(encoded(batch["source_id"], predict(function, batch)))
                rows += batch.num_rows
        return rows

    with ThreadPoolExecutor(WORKERS) as pool:
        return sum(pool.map(work, range(WORKERS)))


def cut(path: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The header's names, and byte ranges that end at newlines."""
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
    """One block as one record batch."""
    table = pacsv.read_csv(
        pa.py_buffer(raw),
        read_options=pacsv.ReadOptions(column_names=names, use_threads=False, block_size=len(raw) + 1),
        convert_options=pacsv.ConvertOptions(column_types=TYPES),
    )
    return table.to_batches()[0]


def predict(function: Any, batch: pa.RecordBatch) -> pa.Array:
    """The predictions of a block, in calls of BATCH_ROWS rows."""
    words = {name: tf.constant(batch[name].dictionary.to_pylist()) for name in STRINGS}
    codes = {name: batch[name].indices.to_numpy() for name in STRINGS}
    numbers = {name: batch[name].to_numpy() for name in NUMBERS}
    results = []
    for low in range(0, batch.num_rows, BATCH_ROWS):
        rows = slice(low, low + BATCH_ROWS)
        tensors = {name: tf.gather(words[name], codes[name][rows]) for name in STRINGS}
        tensors |= {name: tf.constant(numbers[name][rows]) for name in NUMBERS}
        results.append(pa.array(function(**tensors)["predictions"].numpy().reshape(-1)))
    return pa.concat_arrays(results)


def encoded(keys: pa.Array, predictions: pa.Array) -> memoryview:
    """Lines of CSV. The writer of polars is faster than that of pyarrow here."""
    lines = io.BytesIO()
    frame = pl.from_arrow(pa.record_batch([keys, predictions], names=["source_id", "predictions"]))
    frame.write_csv(lines, include_header=False)
    return lines.getbuffer()


if __name__ == "__main__":
    measure(run, job_from_command_line())
