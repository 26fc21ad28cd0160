"""Predicts, as the one transform: record batches in, the same with predictions out, failed rows beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference

from inference.coders import typed
from inference.errors import Failure, PredictionError
from inference.marks import failures_of, numbered, taken

_REJECTED = "rejected"


@dataclass(frozen=True)
class Rejected:
    """Describes the rows of one batch that have no prediction.

    Attributes:
      key: the batch's key, if batches were keyed, else None.
      rows: the columns of those rows, without outputs.
      failures: row's index in the original batch -> why, in the order of `rows`.
    """

    key: Any
    rows: pa.RecordBatch
    failures: dict[int, Failure]


class Predict(beam.PTransform):  # type: ignore[misc]  # Beam's classes are untyped
    """Adds a model's predictions to record batches.

    The handler decides where the model is called; nothing else changes. With Beam's KeyedModelHandler around
    it, batches come as `(key, batch)` and leave so; of a keyed batch from which failed rows were taken
    `inference.marks.rows_of` tells which rows of the original batch their neighbours were.

    As it is, a row without a prediction fails the pipeline: nothing is lost unnoticed. With
    `with_exception_handling()` the result is a pair, as in Beam: the batches of predicted rows, and a
    PCollection of `Rejected`.

    Args:
      handler: for example a SavedModelHandler.
      run_inference: further arguments of Beam's RunInference, such as `model_metadata_pcoll`.
    """

    def __init__(self, handler: ModelHandler[Any, Any, Any], **run_inference: Any) -> None:
        super().__init__()
        self._handler = handler
        self._run_inference = run_inference
        self._separates = False

    def with_exception_handling(self) -> Predict:
        """Gives failed rows as a second PCollection, instead of failing the pipeline."""
        self._separates = True
        return self

    def expand(self, pcoll: beam.PCollection) -> Any:
        batches = pcoll
        if self._handler.should_skip_batching():
            alone = pcoll | "Alone" >> beam.Map(_in_a_list)
            batches = typed(alone, list[pcoll.element_type]) if pcoll.element_type else alone
        results = batches | "RunInference" >> RunInference(self._handler, **self._run_inference)
        typed(results, pcoll.element_type)
        separated = results | "Separate" >> beam.ParDo(_Separate(self._separates)).with_outputs(
            _REJECTED, main="predicted"
        )
        predicted = typed(separated.predicted, pcoll.element_type)
        return (predicted, separated[_REJECTED]) if self._separates else predicted


class Keyed(KeyedModelHandler):  # type: ignore[misc]
    """Beam's KeyedModelHandler; the handler in it decides whether small batches are gathered, too."""

    def __init__(self, handler: ModelHandler[Any, Any, Any]) -> None:
        super().__init__(handler)
        self._gathers = not handler.should_skip_batching()

    def should_skip_batching(self) -> bool:
        """Tells what the handler tells."""
        return not self._gathers

    def get_num_bytes(self, batch: Sequence[tuple[Any, Any]]) -> int:
        """Returns the bytes of the elements without their keys. Beam would pickle the keys to count theirs, and behind
        a key may be all of a block.
        """
        found: int = self._unkeyed.get_num_bytes([element for _, element in batch])
        return found


def _in_a_list(element: Any) -> list[Any]:
    return [element]


class _Separate(beam.DoFn):  # type: ignore[misc]
    def __init__(self, separates: bool) -> None:
        self._separates = separates

    def process(self, element: Any) -> Iterator[Any]:
        key, batch = element if isinstance(element, tuple) else (None, element)
        failures = failures_of(batch)
        if not failures:
            yield element
            return
        if not self._separates:
            row, failure = next(iter(failures.items()))
            raise PredictionError(
                f"{len(failures)} of {batch.num_rows} rows have no prediction, first row {row}: "
                f"{failure.message} ({failure.error}); use Predict(...).with_exception_handling() to go on without them"
            )
        bad = np.fromiter(failures, np.int64, len(failures))
        yield beam.pvalue.TaggedOutput(_REJECTED, Rejected(key, taken(batch, bad), failures))
        good = np.setdiff1d(np.arange(batch.num_rows, dtype=np.int64), bad)
        if len(good):
            kept = taken(batch, good)
            yield (key, numbered(kept, good)) if isinstance(element, tuple) else kept
