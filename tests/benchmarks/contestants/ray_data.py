"""Ray Data: read_csv, map_batches with two actors that hold the model, write_csv.

The cluster is started and a tiny job is run before the clock starts. Ray makes new processes for the
actors of each job: reading waits for the actors, and the clock starts when both have imported TensorFlow,
before they load the model. (`ray_data_first` is the same job without any of that.)
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from pathlib import Path

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
    job_from_command_line,
    measure,
)

BLOCK_BYTES = 8 << 20
"""Larger than the 1 MB that pyarrow takes by default, for fewer and larger tasks."""


class Predictor:
    """An actor of the pool."""

    def __init__(self, model: str, imported: str) -> None:
        import tensorflow as tf

        Path(imported, uuid.uuid4().hex).write_text(str(time.time()))
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


def run(source: str, output: str, model: str, imported: str) -> None:
    """Runs the job."""
    types = {**dict.fromkeys(STRINGS, pa.string()), **dict.fromkeys(NUMBERS, pa.float32())}
    (
        ray.data.read_csv(
            source,
            read_options=pacsv.ReadOptions(block_size=BLOCK_BYTES),
            convert_options=pacsv.ConvertOptions(column_types=types),
        )
        .map_batches(
            Predictor,
            fn_constructor_kwargs={"model": model, "imported": imported},
            batch_size=BATCH_ROWS,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=WORKERS),
            # The actors leave one of the two CPUs to the tasks that read and write.
            num_cpus=1 / WORKERS,
        )
        .write_csv(output)
    )


def absolute(path: str) -> str:
    """Ray's processes have working directories of their own."""
    return str(Path(path).resolve())


def main(*, first: bool = False) -> None:
    """Starts the cluster, measures.

    Args:
      first: the job is the first one of the cluster, and its clock starts when it is submitted.
    """
    job = job_from_command_line()
    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=4 << 30,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.wait_for_min_actors_s = 600
    context.target_max_block_size = BLOCK_BYTES
    model = absolute(job.model)
    warm, measured = (Path(absolute(job.scratch), name) for name in ("warm", "measured"))
    warm.mkdir()
    measured.mkdir()
    if not first:
        run(absolute(job.tiny), absolute(f"{job.scratch}/tiny"), model, str(warm))
    measure(
        lambda job: run(absolute(job.input), absolute(job.output), model, str(measured)),
        job,
        begins=None if first else lambda: max(float(path.read_text()) for path in measured.iterdir()),
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
