"""Ray Data: read_csv, map_batches with two actors that hold the model, write_csv.

The cluster is started and a tiny job is run before the clock starts. Ray makes new actors for each job; enough idle
processes that have imported TensorFlow are kept for them, so that no import is timed.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import ray

from tests.benchmarks.contestants.common import (
    BATCH_ROWS,
    NUMBERS,
    STRINGS,
    WORKERS,
    Job,
    job_from_command_line,
    measure,
)


PROCESSES = 4
"""Two actors, one task that reads, one that writes."""

IMPORT_SECONDS = 20
"""Long enough that every process is busy with one import and none takes two."""


class Predictor:
    """An actor of the pool."""

    def __init__(self, model: str) -> None:
        t = time.time()
        import tensorflow as tf
        print("IMPORT", time.time() - t, file=open("/tmp/b/imp", "a"))

        self._tf = tf
        self._loaded = tf.saved_model.load(model)
        self._function = self._loaded.signatures["serving_default"]

    def __call__(self, batch: pa.Table) -> pa.Table:
        tensors = {}
        for name in STRINGS:
            column = batch[name].combine_chunks()
            if not pa.types.is_dictionary(column.type):
                column = column.dictionary_encode()
            words = self._tf.constant(column.dictionary.to_pylist())
            tensors[name] = self._tf.gather(words, column.indices.to_numpy())
        for name in NUMBERS:
            tensors[name] = self._tf.constant(batch[name].to_numpy())
        predictions = self._function(**tensors)["predictions"].numpy().reshape(-1)
        return pa.table({"source_id": batch["source_id"], "predictions": np.asarray(predictions)})


def run(source: str, output: str, model: str) -> None:
    """Runs the job."""
    types = {**dict.fromkeys(STRINGS, pa.string()), **dict.fromkeys(NUMBERS, pa.float32())}
    (
        ray.data.read_csv(source, convert_options=pacsv.ConvertOptions(column_types=types))
        .map_batches(
            Predictor,
            fn_constructor_kwargs={"model": model},
            batch_size=BATCH_ROWS,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=WORKERS),
            # The actors leave one of the two CPUs to the tasks that read and write.
            num_cpus=1 / WORKERS,
        )
        .write_csv(output)
    )


@ray.remote(num_cpus=WORKERS / PROCESSES)
def import_tensorflow() -> None:
    """Leaves behind an idle process that has imported TensorFlow."""
    import tensorflow  # noqa: F401

    time.sleep(IMPORT_SECONDS)


def absolute(path: str) -> str:
    """Ray's processes have working directories of their own."""
    return str(Path(path).resolve())


def main() -> None:
    """Starts the cluster, warms it, measures."""
    job = job_from_command_line()
    model = absolute(job.model)
    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=4 << 30,
        _system_config={
            "num_workers_soft_limit": PROCESSES,
            "idle_worker_killing_time_threshold_ms": 3_600_000,
        },
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    run(absolute(job.tiny), absolute(f"{job.scratch}/tiny"), model)
    ray.get([import_tensorflow.remote() for _ in range(PROCESSES)])
    measure(lambda job: run(absolute(job.input), absolute(job.output), model), job)
    ray.shutdown()


if __name__ == "__main__":
    main()
