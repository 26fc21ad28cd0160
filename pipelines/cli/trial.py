"""Predicts the first rows of a source for `check --model`, in this process, as a run would."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from inference.columns.coercion import leaf_of
from inference.errors import InferenceError
from inference.marks import failures_of, numbered, rows_of, taken
from inference.predict import Rejected
from model.errors import ModelError
from model.quiet import quiet_imports
from model.secrets import masked
from pipelines.cli.sample_view import Table, show_reasons
from pipelines.config.errors import ConfigError
from pipelines.config.model import EndpointConfig
from pipelines.config.registry import source_encodings
from pipelines.connectors.writing.row_writer import OutputRows, RowWriter
from pipelines.connectors.writing.rows import WriteRows
from pipelines.dead_letters.place import DeadLetterPlace, DeadLetterWriter
from pipelines.dead_letters.step import RejectUnpredicted
from pipelines.engine.common import import_tensorflow, runtime_used
from pipelines.formats.output_values import shown_values
from pipelines.plan import OutputColumn, Plan
from pipelines.planning.model import make_handler
from pipelines.planning.sampling import Sample
from pipelines.rows.origin import DeadLetter

_CELL_CHARACTERS = 40
_MOST_ATTEMPTS = 3
"""Of a request to a server: a person waits for the answer."""


@dataclass(frozen=True)
class Trial:
    """Describes what a model made of the first rows of a source.

    Attributes:
      runtime: what ran the model: native or python; None if it is on a server.
      rows: how many rows the model got.
      outputs: the first rows that it predicted, as the output would have them.
      failed: (row, reason) of those that would become dead letters, at the model or when they are written.
      untried: why there were no rows for the model; else empty.
    """

    runtime: str | None
    rows: int
    outputs: tuple[dict[str, Any], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    untried: str = ""

    def findings(self) -> dict[str, Any]:
        """Returns the same as `show` prints, for --json."""
        found: dict[str, Any] = {
            "runtime": self.runtime,
            "rows": self.rows,
            "outputs": list(self.outputs),
            "failed": [{"row": row, "reason": reason} for row, reason in self.failed],
        }
        return found | ({"untried": self.untried} if self.untried else {})

    def problems(self, plan: Plan) -> list[str]:
        """Says that the model fails on all rows, if that is so, and the run could not end well."""
        if not self.rows or len(self.failed) < self.rows or plan.config.dead_letters.max_fraction >= 1:
            return []
        row, reason = self.failed[0]
        what = "the one row" if self.rows == 1 else f"each of the {self.rows:,} rows"
        return [f"model: it fails on {what} that it was tried with; {row}: {reason}"]


def predict(plan: Plan, sample: Sample, shown: int) -> Trial:
    """Loads the model, or calls its server, and predicts the rows of a sample.

    Args:
      plan: of the run.
      sample: the first rows of its source.
      shown: how many rows of the output are kept to look at.

    Raises:
      ConfigError: the model cannot be loaded, or the server refuses.
    """
    parts = list(sample.to_predict())
    try:
        results = _results(plan, [batch for _, batch in parts])
    except (ModelError, InferenceError, OSError) as error:
        raise ConfigError([masked(f"model: {' '.join(str(error).split())}")]) from error
    dead_letters = _DeadLettersInMemory()
    first = _FirstRows(plan.output, shown)
    sink = WriteRows(first, plan.key_column, dead_letters, plan.model.id)
    reject = RejectUnpredicted(dead_letters, plan.model.id, plan.key_column)
    for (origin, batch), result in zip(parts, results, strict=True):
        rows = rows_of(batch)
        failures = failures_of(result)
        bad = np.fromiter(failures, np.int64, len(failures))
        if len(bad):
            by_row = dict(zip(rows[bad].tolist(), failures.values(), strict=True))
            reject.process(Rejected(origin, taken(result, bad), by_row))
        good = np.setdiff1d(np.arange(result.num_rows, dtype=np.int64), bad)
        if len(good):
            sink.process((origin, numbered(taken(result, good), rows[good])))
    failed = tuple((dead_letter.source, dead_letter.message) for dead_letter in dead_letters.taken)
    given = sum(batch.num_rows for _, batch in parts)
    return Trial(runtime_used(plan), given, tuple(first.shown), failed, "" if given else _why_none(plan, sample))


def _results(plan: Plan, batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Predicts batches as the handler of a run does."""
    model = plan.model
    if isinstance(model.config, EndpointConfig):
        attempts = min(model.config.max_attempts, _MOST_ATTEMPTS)
        model = replace(model, config=model.config.model_copy(update={"max_attempts": attempts}))
    source = plan.config.source
    with quiet_imports():
        import_tensorflow(plan)
    handler = make_handler(
        model,
        columns=source.columns,
        defaults=source.defaults,
        encodings=source_encodings(source),
        max_rows=plan.config.batching.max_rows,
        max_bytes=plan.config.batching.max_bytes,
        model_version=plan.tells_version,
        outputs=plan.model_outputs,
    )
    loaded = handler.load_model()
    return list(handler.run_inference(batches, loaded)) if batches else []


def _why_none(plan: Plan, sample: Sample) -> str:
    if plan.config.source.type == "bigquery" and not sample.read:
        return "there are no rows to predict: the table has none, or a query's rows would cost what the query costs"
    if not plan.config.is_batch:
        return "there are no rows to predict: what messages have shows when they come"
    if sample.read:
        return "there are no rows to predict: each of the first rows would become a dead letter"
    return "there are no rows to predict: the source has none"


class _DeadLettersInMemory(DeadLetterPlace, DeadLetterWriter):
    """Keeps dead letters in memory."""

    def __init__(self) -> None:
        self.taken: list[DeadLetter] = []

    def check(self) -> None: ...

    def describe(self) -> str:
        return "memory"

    def open(self) -> DeadLetterWriter:
        return self

    def begin_bundle(self) -> None: ...

    def write(self, dead_letter: DeadLetter) -> None:
        self.taken.append(dead_letter)

    def end_bundle(self) -> Iterable[Any]:
        return ()

    def close(self) -> None: ...


class _FirstRows(RowWriter):
    """Keeps the first rows that a sink would write, as values to look at.

    Args:
      columns: the columns of the output.
      most: how many rows are kept.
    """

    stage = "encode"

    def __init__(self, columns: tuple[OutputColumn, ...], most: int) -> None:
        self.columns = columns
        self._most = most
        self.shown: list[dict[str, Any]] = []

    def write(self, rows: OutputRows) -> None:
        first = rows.encoded.slice(0, max(0, self._most - len(self.shown)))
        columns = [_readable(column) for column in first.columns]
        names = first.schema.names
        self.shown += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def show(console: Any, print_table: Table, trial: Trial) -> None:
    """Prints the first rows that the model predicted, and those on which it fails, with their reasons."""
    ran = f" ({trial.runtime} runtime)" if trial.runtime else ""
    if trial.untried:
        console.print(f"the model loads{ran}; {trial.untried}" if trial.runtime else trial.untried)
        return
    if trial.outputs:
        cells = [[_cell(value) for value in row.values()] for row in trial.outputs]
        print_table(console, f"first rows of the output{ran}", list(trial.outputs[0]), cells)
    rows = "row" if trial.rows == 1 else f"{trial.rows:,} rows"
    if not trial.failed:
        console.print(f"the model predicts {'the one' if trial.rows == 1 else 'all'} {rows} that it was tried with")
        return
    console.print(f"of the {rows} that the model was tried with, {len(trial.failed):,} would become dead letters:")
    show_reasons(console, trial.failed)


def _readable(column: pa.Array) -> list[Any]:
    values = shown_values(column)
    # Of as many digits as a number of this type has, as files of text have it.
    return _rounded(values) if leaf_of(column.type) == pa.float32() else values  # type: ignore[no-any-return]


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return value if value is None else float(str(np.float32(value)))


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _CELL_CHARACTERS else text[: _CELL_CHARACTERS - 3] + "..."
