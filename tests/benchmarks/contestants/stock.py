"""Beam as its guides show it: ReadFromText, a dict for each row, RunInference, WriteToText.

Batches are as large as Beam's BatchElements chooses by default.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import apache_beam.runners.portability.fn_api_runner.fn_runner
import numpy as np
import tensorflow as tf
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from tests.benchmarks.contestants.common import NUMBERS, STRINGS, WORKERS, Job, job_from_command_line, measure

Row = dict[str, Any]


class DictHandler(ModelHandler[Row, PredictionResult, Any]):
    """Calls the SavedModel with batches of dicts."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def load_model(self) -> Any:
        return tf.saved_model.load(self._path)

    def run_inference(
        self, batch: Sequence[Row], model: Any, inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        tensors = {name: tf.constant([row[name] for row in batch]) for name in STRINGS}
        tensors |= {name: tf.constant([row[name] for row in batch], tf.float32) for name in NUMBERS}
        predictions = model.signatures["serving_default"](**tensors)["predictions"].numpy()
        return map(PredictionResult, batch, predictions.reshape(-1))


class ParseLine(beam.DoFn):
    """A line -> a dict."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def process(self, line: str) -> Iterable[Row]:
        row: Row = dict(zip(self._names, next(csv.reader([line])), strict=True))
        for name in NUMBERS:
            row[name] = float(row[name])
        yield row


def as_line(result: PredictionResult) -> str:
    """A prediction -> a line."""
    return f"{result.example['source_id']},{np.format_float_positional(result.inference)}"


def run(job: Job, options: Sequence[str]) -> None:
    """Builds the pipeline and waits for its end."""
    with open(job.input) as file:
        names = file.readline().strip().split(",")
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        _ = (
            pipeline
            | beam.io.ReadFromText(job.input, skip_header_lines=1)
            | beam.ParDo(ParseLine(names))
            | RunInference(DictHandler(job.model))
            | beam.Map(as_line)
            | beam.io.WriteToText(f"{job.output}/part", file_name_suffix=".csv", header="source_id,predictions")
        )


def main(options: Sequence[str]) -> None:
    """Measures with some options of the local runner."""
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    measure(lambda job: run(job, options), job_from_command_line())


if __name__ == "__main__":
    main(["--runner=FnApiRunner", "--direct_running_mode=multi_threading", f"--direct_num_workers={WORKERS}"])
