"""Calls of a model in the native runtime against the Python runtime: `python -m tests.benchmarks.runtime`.

A call is what a batch of a run costs: from the columns of a record batch to the columns of predictions. Both runtimes
are in one process and take turns; medians are compared. `--job N` compares whole runs of `pipelines.batch` instead, on
N different sentences: each in a process of its own, timed by what it reports as `seconds`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from inference.marks import failures_of
from inference.saved_model.handler import SavedModelHandler
from model import terminal

ROOT = Path(__file__).resolve().parents[2]
SIZES = {1: 2.5, 1_000: 1.8, 16_384: None}
"""Rows in a call, and the ratio that is aimed at."""


def births(rows: int) -> pa.RecordBatch:
    """Made-up births as a CSV reader gives them: strings as dictionaries."""
    random = np.random.default_rng(rows)
    words = {
        "is_male": ["True", "False", "Unknown"],
        "mother_race": ["White", "Black", "Chinese", "Japanese"],
        "mother_married": ["True", "False"],
        "cigarette_use": ["True", "False", "Unknown"],
        "alcohol_use": ["True", "False", "Unknown"],
    }
    columns: dict[str, pa.Array] = {}
    for name, values in words.items():
        indices = pa.array(random.integers(0, len(values), rows, np.int32))
        columns[name] = pa.DictionaryArray.from_arrays(indices, pa.array(values))
    for name, low, high in (("mother_age", 14, 50), ("plurality", 1, 4), ("gestation_weeks", 20, 44)):
        columns[name] = pa.array(random.integers(low, high, rows).astype(np.float32))
    return pa.RecordBatch.from_pydict(columns)


def sentences(rows: int) -> pa.RecordBatch:
    """Sentences, each another one."""
    return pa.RecordBatch.from_pydict(
        {"text": [f"sentence {i} of {rows}, which is not like others" for i in range(rows)]}
    )


def text_model(folder: str) -> str:
    """Saves a model that splits sentences into words and hashes those."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = tf.Variable(tf.random.stateless_normal([1024], [1, 2]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def serving_default(text: Any) -> dict[str, Any]:
        buckets = tf.strings.to_hash_bucket_fast(tf.strings.substr(text, 0, 20), 1024)
        return {"score": tf.gather(module.weights, buckets) + tf.cast(tf.strings.length(text), tf.float32)}

    tf.saved_model.save(module, folder, {"serving_default": serving_default.get_concrete_function()})
    return folder


def compare(name: str, path: str, make: Any, rounds: int) -> None:
    """Prints a line for each size."""
    handlers = {runtime: SavedModelHandler(path, runtime=runtime) for runtime in ("native", "python")}
    models = {runtime: handler.load_model() for runtime, handler in handlers.items()}
    for rows, target in SIZES.items():
        batch = make(rows)
        calls = max(3, min(300, 60_000 // rows))
        taken: dict[str, list[float]] = {runtime: [] for runtime in handlers}
        for turn in range(rounds + 1):
            for runtime in list(handlers)[:: 1 if turn % 2 else -1]:
                started = time.perf_counter()
                for _ in range(calls):
                    [found] = handlers[runtime].run_inference([batch], models[runtime])
                if turn:
                    taken[runtime].append((time.perf_counter() - started) / calls)
                if failures_of(found):
                    raise RuntimeError(f"{runtime}: {next(iter(failures_of(found).values()))}")
        native, python = (statistics.median(taken[runtime]) * 1e3 for runtime in ("native", "python"))
        aim = "" if target is None else f", aim >= {target}"
        times = f"native {native:7.3f} ms, python {python:7.3f} ms"
        terminal.print_line(f"{name}, {rows:>6,} rows: {times}, ratio {python / native:.2f}{aim}")


def compare_jobs(rows: int, rounds: int, folder: Path) -> None:
    """Prints how long `pipelines.batch` takes for different sentences in each runtime."""
    pacsv.write_csv(pa.Table.from_batches([sentences(rows)]), folder / "sentences.csv")
    config = {
        "name": "sentences",
        "source": {"type": "file", "format": "csv", "path": str(folder / "sentences.csv")},
        "model": {"type": "saved_model", "path": text_model(str(folder / "model"))},
        "output": {"type": "file", "format": "csv", "path": str(folder / "out" / "part")},
    }
    (folder / "job.json").write_text(json.dumps(config))
    taken: dict[str, list[float]] = {"native": [], "python": []}
    for turn in range(rounds):
        for runtime in list(taken)[:: 1 if turn % 2 else -1]:
            command = [sys.executable, "-m", "pipelines.batch", "--config", str(folder / "job.json"), "--json"]
            run = subprocess.run(
                [*command, "--set", f"model.runtime={runtime}"], cwd=ROOT, capture_output=True, text=True, check=True
            )
            summary = json.loads(run.stdout)
            if summary["rows_written"] != rows or summary["runtime"] != runtime:
                raise RuntimeError(f"{runtime}: {run.stdout}")
            taken[runtime].append(summary["seconds"])
    native, python = (statistics.median(taken[runtime]) for runtime in ("native", "python"))
    times = f"native {native:.2f} s, python {python:.2f} s"
    terminal.print_line(f"a job of {rows:,} different sentences: {times}, ratio {python / native:.2f}")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Compare the runtimes, call by call.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--job", type=int, metavar="ROWS", help="compare runs of pipelines.batch on so many sentences")
    options = parser.parse_args()
    if options.job:
        with tempfile.TemporaryDirectory() as folder:
            compare_jobs(options.job, options.rounds, Path(folder))
        return
    compare("births", str(ROOT / "model" / "trained" / "v1"), births, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        compare("different sentences", text_model(folder), sentences, options.rounds)


if __name__ == "__main__":
    main()
