"""Ray Data: read_csv, map_batches with two actors that hold the model, write_csv.

The cluster is started and a tiny job is run before the clock starts. Ray starts a new process for each actor of a
job: the time that it takes to import TensorFlow there is taken off.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
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


class Predictor:
    """An actor of the pool."""

    def __init__(self, model: str, imports: str) -> None:
        started = time.perf_counter()
        import tensorflow as tf

        Path(imports, uuid.uuid4().hex).write_text(str(time.perf_counter() - started))
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


def run(source: str, output: str, model: str, imports: str) -> None:
    """Runs the job."""
    types = {**dict.fromkeys(STRINGS, pa.string()), **dict.fromkeys(NUMBERS, pa.float32())}
    (
        ray.data.read_csv(source, convert_options=pacsv.ConvertOptions(column_types=types))
        .map_batches(
            Predictor,
            fn_constructor_kwargs={"model": model, "imports": imports},
            batch_size=BATCH_ROWS,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=WORKERS),
            # The actors leave one of the two CPUs to the tasks that read and write.
            num_cpus=1 / WORKERS,
        )
        .write_csv(output)
    )


def main() -> None:
    """Starts the cluster, warms it, measures."""
    job = job_from_command_line()
    model = str(Path(job.model).resolve())
    imports = [Path(job.scratch, name).resolve() for name in ("warm", "measured")]
    for folder in imports:
        folder.mkdir()
    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=4 << 30,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    run(str(Path(job.tiny).resolve()), f"{Path(job.scratch).resolve()}/tiny", model, str(imports[0]))
    measure(
        lambda job: run(str(Path(job.input).resolve()), str(Path(job.output).resolve()), model, str(imports[1])),
        job,
        excused=lambda: max(float(path.read_text()) for path in imports[1].iterdir()),
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
