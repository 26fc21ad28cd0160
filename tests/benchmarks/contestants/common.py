"""What the contestants share: the command line, the clock, the one line of JSON that each prints.

A contestant is run as `python -m tests.benchmarks.contestants.<name> --input FILE ...`. Its module
imports everything it needs before it calls `measure`, so that no import is timed.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

J = TypeVar("J")
STRINGS = ("is_male", "mother_race", "mother_married", "cigarette_use", "alcohol_use")
NUMBERS = ("mother_age", "plurality", "gestation_weeks")
BATCH_ROWS = 16384
WORKERS = 2


@dataclass(frozen=True)
class Job:
    """What a contestant does: predict every row of a CSV file, write key and prediction as CSV.

    Attributes:
      input: the CSV file; its header names the key and the model's inputs.
      output: an existing, empty folder; the contestant's files end in `.csv` and have a header.
      model: folder of the SavedModel.
      tiny: a CSV file of few rows, to warm an engine with.
      scratch: an existing, empty folder for whatever else is needed.
    """

    input: str
    output: str
    model: str
    tiny: str
    scratch: str


def job_from_command_line() -> Job:
    """The job, from the arguments of the process."""
    parser = argparse.ArgumentParser()
    for name in Job.__dataclass_fields__:
        parser.add_argument(f"--{name}", required=True)
    return Job(**vars(parser.parse_args()))


def measure(work: Callable[[J], int | None], job: J, begins: Callable[[], float] | None = None) -> None:
    """Does the work and prints its wall time.

    Args:
      work: loads the model, reads, predicts, writes. Returns the number of rows, if it knows.
      job: handed to `work`.
      begins: asked afterwards, the moment (seconds since the epoch) at which the clock is taken to have
        started, for work that cannot help importing first.
    """
    gc.collect()  # what the imports left behind
    started = time.time()
    rows = work(job)
    ended = time.time()
    counted = max(started, begins()) if begins else started
    result = {"seconds": ended - counted, "excused_seconds": counted - started, "rows": rows}
    print(json.dumps(result), flush=True)
