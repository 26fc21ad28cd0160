"""Runs the contestants, interleaved, and compares what they wrote."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from tests.benchmarks import engines, harness
from tests.benchmarks.data import births_file

TIMEOUT_SECONDS = 1800
TOLERANCE = 1e-4
"""Relative; engines cut the rows into batches differently, and float32 sums differ with the batch."""


def _own_python() -> str:
    return sys.executable


CONTESTANTS: dict[str, tuple[str, Callable[[], str]]] = {
    "ours": ("this project", _own_python),
    "bare_native": ("pyarrow + C API, no engine (limit)", _own_python),
    "bare": ("pyarrow + TensorFlow, no engine", _own_python),
    "stock": ("stock Beam, FnApiRunner, 2 threads", _own_python),
    "stock_default": ("stock Beam, default runner", _own_python),
    "ray_data": ("Ray Data map_batches", engines.python),
    "spark": ("Spark predict_batch_udf", engines.python),
    "ray_data_first": ("Ray Data, first job of a cluster", engines.python),
    "spark_first": ("Spark, first job of a session", engines.python),
}
"""Name -> what it is, and the interpreter to run it with."""


class ContestError(Exception):
    """A contestant failed, or wrote something else than the others."""


@dataclass(frozen=True)
class Entry:
    """A contestant and the file that it is given."""

    name: str
    file: Path
    rows: int


@dataclass
class Result:
    """The runs of one entry.

    Attributes:
      entry: what ran.
      seconds: of each run.
      peak_rss_mb: of each run, in 10^6 bytes; for Spark and Ray of all their processes.
    """

    entry: Entry
    seconds: list[float] = field(default_factory=list)
    peak_rss_mb: list[float] = field(default_factory=list)

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.seconds)

    @property
    def rows_per_second(self) -> float:
        return self.entry.rows / self.median_seconds

    @property
    def median_peak_mb(self) -> float:
        return statistics.median(self.peak_rss_mb)


Command = Callable[[Entry, Path], list[str]]
"""What runs an entry, given its folder, in which there are `output` for CSV files and `scratch`, both empty.

The last line that it prints is a JSON object with its `seconds`."""

References = dict[int, tuple[str, pl.DataFrame]]
"""Number of rows -> what the others are compared with: whose it is, keys and predictions in the keys' order."""


def run(entries: Sequence[Entry], repeats: int, out: Path) -> list[Result]:
    """Runs every contestant `repeats` times.

    Raises:
      ContestError: a contestant failed, or its rows are not those of the others.
    """
    interpreters = {entry.name: CONTESTANTS[entry.name][1]() for entry in entries}
    tiny = births_file(out / "data", 1_000)

    def command(entry: Entry, folder: Path) -> list[str]:
        return _command(entry, interpreters[entry.name], tiny, folder)

    return rounds(entries, repeats, out, command)


def rounds(
    entries: Sequence[Entry],
    repeats: int,
    out: Path,
    command: Command,
    references: References | None = None,
    *,
    check_all: bool = False,
    tolerance: float = TOLERANCE,
) -> list[Result]:
    """Runs every entry `repeats` times, every second round backwards.

    Args:
      entries: what to run; their names differ, or their rows do.
      repeats: how often.
      out: folder for all files.
      command: what runs an entry.
      references: what to compare with; the first entry with another number of rows is added.
      check_all: compare the files of every run, not only of the first.
      tolerance: by how much predictions may differ, relative.

    Raises:
      ContestError: an entry failed, or its rows are not those of the others.
    """
    results = [Result(entry) for entry in entries]
    references = {} if references is None else references
    for round in range(repeats):
        for result in results if round % 2 == 0 else reversed(results):
            entry = result.entry
            folder = out / "results" / entry.name
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "scratch").mkdir(parents=True)
            (folder / "output").mkdir()
            _warm_page_cache(entry.file)
            finished = harness.run(command(entry, folder), timeout=TIMEOUT_SECONDS)
            if finished.code:
                tail = "\n".join(finished.err.strip().splitlines()[-15:])
                raise ContestError(f"{entry.name} ended with {finished.code}:\n{tail}")
            seconds = float(json.loads(finished.out.strip().splitlines()[-1])["seconds"])
            result.seconds.append(seconds)
            result.peak_rss_mb.append(finished.peak_rss_mb)
            print(
                f"round {round + 1}/{repeats}  {entry.name:<22} {entry.rows:>11,} rows {seconds:>8.2f} s "
                f"{finished.peak_rss_mb:>6,.0f} MB",
                file=sys.stderr,
            )
            if check_all or len(result.seconds) == 1:
                _check(entry, folder / "output", references, tolerance)
            shutil.rmtree(folder)
    return results


def _command(entry: Entry, python: str, tiny: Path, folder: Path) -> list[str]:
    arguments = {
        "input": entry.file,
        "output": folder / "output",
        "model": "model/trained/v1",
        "tiny": tiny,
        "scratch": folder / "scratch",
    }
    options = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    return [python, "-m", f"tests.benchmarks.contestants.{entry.name}", *options]


def _warm_page_cache(file: Path) -> None:
    with open(file, "rb") as handle:
        while handle.read(1 << 24):
            pass


def _check(entry: Entry, output: Path, references: References, tolerance: float) -> None:
    """Every row is there once, and has the prediction that the first contestant gave it."""
    shards = sorted(path for path in output.iterdir() if path.suffix == ".csv" and path.stat().st_size)
    if not shards:
        raise ContestError(f"{entry.name} wrote no files")
    schema = {"source_id": pl.String, "predictions": pl.Float64}
    found = pl.concat([pl.read_csv(path, schema=schema) for path in shards]).sort("source_id")
    expected = pl.scan_csv(entry.file).select("source_id").collect()
    if not found["source_id"].equals(expected["source_id"]):
        raise ContestError(
            f"{entry.name} wrote {found.height:,} rows with {found['source_id'].n_unique():,} keys for "
            f"{entry.rows:,} rows"
        )
    if entry.rows not in references:
        references[entry.rows] = entry.name, found
        return
    name, reference = references[entry.rows]
    error = ((found["predictions"] - reference["predictions"]) / reference["predictions"]).abs()
    if error.null_count() or not error.is_finite().all() or error.max() > tolerance:
        wrong = int(((error > tolerance) | error.is_null() | error.is_nan()).sum())
        raise ContestError(f"{entry.name} and {name} disagree on {wrong:,} of {entry.rows:,} predictions")
