"""A model server as one asks it by hand: a loop over the rows of a CSV file, with a dict for each.

One request at a time, on a connection that is kept, with the same HTTP library as this project's. Nothing is accounted
for or retried.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.contestants.common import NUMBERS, measure

Row = dict[str, Any]


@dataclass(frozen=True)
class Asking:
    """What to predict, and whom to ask.

    Attributes:
      input: the CSV file; its header names the key and the model's inputs.
      output: an existing, empty folder.
      url: whole address of the prediction, as TensorFlow Serving has it.
      batch_rows: rows in a request.
    """

    input: str
    output: str
    url: str
    batch_rows: int


def run(job: Asking) -> int:
    """Asks for the rows of the file, in its order."""
    rows = 0
    with (
        httpx.Client(timeout=60, trust_env=False) as client,
        open(job.input, newline="") as source,
        open(Path(job.output) / "0.csv", "w", newline="") as sink,
    ):
        writer = csv.DictWriter(sink, ["source_id", "predictions"])
        writer.writeheader()
        reader = csv.DictReader(source)
        while batch := list(islice(instances(reader), job.batch_rows)):
            keys = [row.pop("source_id") for row in batch]
            answer = client.post(
                job.url, content=json.dumps({"instances": batch}), headers={"Content-Type": "application/json"}
            )
            answer.raise_for_status()
            for key, (prediction,) in zip(keys, json.loads(answer.text)["predictions"], strict=True):
                writer.writerow({"source_id": key, "predictions": prediction})
            rows += len(batch)
    return rows


def instances(reader: csv.DictReader[str]) -> Iterator[Row]:
    """Lines -> dicts with the model's types."""
    for line in reader:
        row: Row = dict(line)
        for name in NUMBERS:
            row[name] = float(row[name])
        yield row


def asking_from_command_line() -> Asking:
    """The job, from the arguments of the process."""
    parser = argparse.ArgumentParser()
    for name, field in Asking.__dataclass_fields__.items():
        parser.add_argument(f"--{name}", required=True, type=int if field.type == "int" else str)
    return Asking(**vars(parser.parse_args()))


if __name__ == "__main__":
    measure(run, asking_from_command_line())
