"""Spark: read.csv with a schema, predict_batch_udf, write.csv, in local mode with two threads.

The session is started and a tiny job is run before the clock starts, so that the Java machine is warm and the
Python workers, which Spark keeps, have imported TensorFlow. (`spark_first` is the same job without that.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import FloatType

from tests.benchmarks.contestants.common import (
    BATCH_ROWS,
    NUMBERS,
    STRINGS,
    WORKERS,
    Job,
    job_from_command_line,
    measure,
)

Column = npt.NDArray[Any]


def predictor(model: str) -> Callable[[], Callable[..., Column]]:
    """What Spark calls in each Python worker to load the model."""

    def make() -> Callable[..., Column]:
        import tensorflow as tf

        loaded = tf.saved_model.load(model)
        function = loaded.signatures["serving_default"]

        # Spark counts the parameters: one for each column.
        def predict(
            is_male: Column,
            mother_race: Column,
            mother_married: Column,
            cigarette_use: Column,
            alcohol_use: Column,
            mother_age: Column,
            plurality: Column,
            gestation_weeks: Column,
        ) -> Column:
            _ = loaded  # the function does not keep the model alive
            strings = (is_male, mother_race, mother_married, cigarette_use, alcohol_use)
            numbers = (mother_age, plurality, gestation_weeks)
            tensors = {name: tf.constant(column, tf.string) for name, column in zip(STRINGS, strings, strict=True)}
            tensors |= {name: tf.constant(column, tf.float32) for name, column in zip(NUMBERS, numbers, strict=True)}
            return function(**tensors)["predictions"].numpy().reshape(-1)

        return predict

    return make


def run(spark: SparkSession, source: str, output: str, model: str) -> None:
    """Runs the job. A new function each time: the model is loaded again."""
    function = predict_batch_udf(predictor(model), return_type=FloatType(), batch_size=BATCH_ROWS)
    with open(source) as file:
        names = file.readline().strip().split(",")
    schema = ", ".join(f"{name} {'FLOAT' if name in NUMBERS else 'STRING'}" for name in names)
    births = spark.read.csv(Path(source).resolve().as_uri(), schema=schema, header=True)
    births.select("source_id", function(*STRINGS, *NUMBERS).alias("predictions")).write.csv(
        Path(output).resolve().as_uri(), header=True, mode="overwrite"
    )


def main(*, first: bool = False) -> None:
    """Starts the session, measures.

    Args:
      first: the job is the first one of the session, and its clock starts when it is submitted.
    """
    job: Job = job_from_command_line()
    model = str(Path(job.model).resolve())
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = (
        SparkSession.builder.master(f"local[{WORKERS}]")
        .config("spark.driver.memory", "4g")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.log.level", "ERROR")
        .config("spark.local.dir", str(Path(job.scratch).resolve()))
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", BATCH_ROWS)
        # So that even the tiny file reaches both Python workers.
        .config("spark.sql.files.openCostInBytes", "0")
        .getOrCreate()
    )
    if not first:
        run(spark, job.tiny, f"{job.scratch}/tiny", model)
    measure(lambda job: run(spark, job.input, job.output, model), job)
    spark.stop()


if __name__ == "__main__":
    main()
