"""Predicts births in a Beam pipeline of one's own, and keeps the heavy ones.

Run it with `python examples/own_pipeline.py [PREFIX]`; it writes Parquet files, `out/heavy-00000-of-0000N.parquet`
by default.
"""

from __future__ import annotations

import sys

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from inference import Predict, SavedModelHandler
from model import packaged
from pipelines.io import DeadLetter, ReadRecordBatches, WriteRecordBatches

MISSING = {"alcohol_use": "Unknown", "cigarette_use": "Unknown", "gestation_weeks": float("nan")}
"""What the model gets where the births do not say."""


def heavy(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Keeps births of more than 8 pounds: a batch is columns, and a step works on all of its rows at once."""
    return batch.filter(pc.greater(batch["predictions"], 8.0))


def describe(dead_letter: DeadLetter) -> str:
    """Says what is wrong with a row that could not be read."""
    return f"not read: {dead_letter.source}: {dead_letter.message}"


def run(births: str, output: str) -> None:
    """Reads, predicts, filters and writes."""
    # The runner that needs nothing else; beam.Pipeline(options=...) takes any other.
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        rows, dead_letters = pipeline | ReadRecordBatches(births, key="source_id").with_exception_handling()
        predicted = rows | Predict(SavedModelHandler("model/trained/v1", defaults=MISSING))
        written = (
            predicted
            | "Keep heavy" >> beam.Map(heavy)
            | WriteRecordBatches(output, "parquet", columns=["source_id", "mother_age", "predictions"])
        )
        _ = written | "Say what was written" >> beam.Map(lambda path: print(f"wrote {path}"))
        _ = dead_letters | beam.Map(describe) | "Say what was not read" >> beam.Map(print)


if __name__ == "__main__":
    run(packaged.located("data/births-nc-2001.csv"), *(sys.argv[1:] or ["out/heavy"]))
