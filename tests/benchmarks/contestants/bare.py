"""No engine: pyarrow, TensorFlow and two threads, as one would write it by hand for this file and this model.

Nothing is accounted for, retried or dead-lettered, and nothing but this one file layout is supported. This is
the time that the work itself takes with TensorFlow's Python.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import tensorflow as tf

from tests.benchmarks.contestants.births_csv import run_blocks
from tests.benchmarks.contestants.common import BATCH_ROWS, NUMBERS, STRINGS, Job, job_from_command_line, measure


def run(job: Job) -> int:
    """Loads the model and predicts the blocks."""
    loaded = tf.saved_model.load(job.model)
    function = loaded.signatures["serving_default"]
    return run_blocks(job, lambda batch: predict(function, batch))


def predict(function: Any, batch: pa.RecordBatch) -> pa.Array:
    """Predicts a block in calls of BATCH_ROWS rows."""
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


if __name__ == "__main__":
    measure(run, job_from_command_line())
